//! Which bytes were read from a connection and not yet used?

/// The bytes that were read from one connection and not yet used.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) progress: Progress,
}

/// How far a head was looked at that has not come completely; positions count from the first unread byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The tokeniser was tried once and found no complete head.
    pub(super) tried: bool,
    /// Count of complete lines that were checked.
    pub(super) lines: usize,
    /// Where the first unchecked line begins.
    pub(super) line_start: usize,
    /// No end of that line lies before this position.
    pub(super) scanned: usize,
}

impl ReadBuffer {
    /// Bytes that are free for one read unless more are asked for.
    const READ: usize = 4096;

    /// An empty buffer without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The unread bytes.
    #[inline]
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Count of unread bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is unread.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Marks bytes at the front as used; more than there are counts as all of them.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.progress = Progress::default();
        if count >= self.len() {
            self.bytes.clear();
            self.start = 0;
        } else {
            self.start += count;
        }
    }

    /// The vector to append the next read to, with free space for at least 4 KiB.
    #[inline]
    pub fn fill(&mut self) -> &mut Vec<u8> {
        self.fill_at_least(Self::READ)
    }

    /// The vector to append the next read to, with free space for at least `count` bytes. The caller appends only.
    pub fn fill_at_least(&mut self, count: usize) -> &mut Vec<u8> {
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < count {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(count);
        &mut self.bytes
    }

    /// Forgets the unread bytes.
    pub fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Exchanges the unread bytes for an empty vector, without copying: `bytes` holds them afterwards, from the returned
    /// position on.
    pub fn swap(&mut self, bytes: &mut Vec<u8>) -> usize {
        bytes.clear();
        std::mem::swap(&mut self.bytes, bytes);
        self.progress = Progress::default();
        std::mem::take(&mut self.start)
    }

    /// Frees the memory when nothing is unread, for a connection that will be idle.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Gives the first `size` unread bytes to the empty vector `head` and returns where in it they begin.
    ///
    /// The vectors change places when little follows the head, which is the rule; otherwise the head is copied, so that
    /// many requests in one read cost time in proportion to their bytes.
    pub(super) fn hand_over(&mut self, size: usize, head: &mut Vec<u8>) -> usize {
        let start = self.start;
        let end = start + size;
        self.progress = Progress::default();
        if self.bytes.len() - end > size {
            head.extend_from_slice(&self.bytes[start..end]);
            self.start = end;
            return 0;
        }
        std::mem::swap(&mut self.bytes, head);
        self.bytes.extend_from_slice(&head[end..]);
        self.start = 0;
        head.truncate(end);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumed_buffer_starts_again_at_its_front() {
        let mut buffer = ReadBuffer::new();
        buffer.fill().extend_from_slice(b"abcdef");
        buffer.consume(2);
        assert_eq!(buffer.unread(), b"cdef");
        buffer.fill_at_least(1 << 20).extend_from_slice(b"gh");
        assert_eq!((buffer.unread(), buffer.start), (&b"cdefgh"[..], 0));
        buffer.consume(100);
        assert!(buffer.is_empty());
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn bytes_that_are_unread_survive_a_release() {
        let mut buffer = ReadBuffer::new();
        buffer.fill().extend_from_slice(b"abc");
        buffer.release();
        assert_eq!(buffer.unread(), b"abc");
    }

    #[test]
    fn a_head_is_handed_over_without_a_copy_unless_much_follows_it() {
        for rest in ["", "tail", "a tail that is longer than the head"] {
            let mut buffer = ReadBuffer::new();
            buffer.fill().extend_from_slice(b"..headhead");
            buffer.fill().extend_from_slice(rest.as_bytes());
            buffer.consume(2);
            let memory = buffer.bytes.as_ptr();
            let mut head = Vec::new();
            let start = buffer.hand_over(8, &mut head);
            assert_eq!(&head[start..], b"headhead");
            assert_eq!(buffer.unread(), rest.as_bytes());
            assert_eq!(head.as_ptr() == memory, rest.len() <= 8);
        }
    }
}
