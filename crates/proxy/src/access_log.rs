//! Where access log lines go: a buffer per worker, and one thread that writes to the files.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// A buffer is handed over when it holds this many bytes; Envoy's threshold.
const FLUSH_BYTES: usize = 64 * 1024;
/// Buffers waiting for the disk; when there are more, lines are dropped and counted.
const QUEUE: usize = 64;

/// A batch of lines for one file, or a request to say when all earlier batches are written.
enum Batch {
    Lines(Arc<str>, Vec<u8>),
    Barrier(std::sync::mpsc::Sender<()>),
    /// Open every file anew, because somebody moved them away.
    Reopen,
}

/// The way to the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct LogSink {
    batches: SyncSender<Batch>,
}

impl LogSink {
    /// Starts the writer thread, which ends when the last sink is dropped.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (batches, receiver) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_batches(&receiver))?;
        Ok(Self { batches })
    }

    /// Waits until everything sent so far is in the files.
    pub(crate) fn flush(&self) {
        let (done, written) = std::sync::mpsc::channel();
        if self.batches.send(Batch::Barrier(done)).is_ok() {
            // An error means that the writer is gone, and with it all batches.
            let _ = written.recv();
        }
    }

    /// Has the files opened anew when the next lines come; what was sent before goes to the old ones.
    pub(crate) fn reopen(&self) {
        // An error means that the writer is gone, and with it all files.
        let _ = self.batches.send(Batch::Reopen);
    }
}

/// The buffers of one worker.
#[derive(Debug)]
pub(crate) struct LogBuffers {
    sink: LogSink,
    buffers: RefCell<Vec<(Arc<str>, Vec<u8>)>>,
}

impl LogBuffers {
    /// Empty buffers in front of a sink.
    pub(crate) fn new(sink: LogSink) -> Self {
        Self { sink, buffers: RefCell::default() }
    }

    /// Appends to the buffer of a file by way of `render`.
    pub(crate) fn append(&self, path: &Arc<str>, render: impl FnOnce(&mut Vec<u8>)) {
        let mut buffers = self.buffers.borrow_mut();
        let position = match buffers.iter().position(|(known, _)| Arc::ptr_eq(known, path) || known == path) {
            Some(position) => position,
            None => {
                buffers.push((path.clone(), Vec::new()));
                buffers.len() - 1
            }
        };
        let (_, buffer) = &mut buffers[position];
        render(buffer);
        if buffer.len() >= FLUSH_BYTES {
            self.hand_over(path, buffer);
        }
    }

    /// Hands all lines to the writer; called by the worker's tick.
    pub(crate) fn flush(&self) {
        for (path, buffer) in self.buffers.borrow_mut().iter_mut() {
            if !buffer.is_empty() {
                self.hand_over(path, buffer);
            }
        }
    }

    fn hand_over(&self, path: &Arc<str>, buffer: &mut Vec<u8>) {
        let batch = std::mem::take(buffer);
        match self.sink.batches.try_send(Batch::Lines(path.clone(), batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(Batch::Lines(path, batch))) => {
                tracing::warn!(file = %path, bytes = batch.len(), "the access log file is too slow; lines were dropped");
            }
            Err(_) => {}
        }
    }
}

fn write_batches(receiver: &Receiver<Batch>) {
    let mut files: HashMap<Arc<str>, Option<File>> = HashMap::new();
    while let Ok(batch) = receiver.recv() {
        match batch {
            Batch::Lines(path, lines) => {
                let file = files.entry(path.clone()).or_insert_with(|| open(&path));
                if let Some(open) = file
                    && let Err(error) = open.write_all(&lines)
                {
                    tracing::warn!(file = %path, %error, "cannot write the access log");
                    *file = None;
                }
            }
            Batch::Reopen => files.clear(),
            Batch::Barrier(done) => {
                // The asker may have given up waiting.
                let _ = done.send(());
            }
        }
    }
}

fn open(path: &str) -> Option<File> {
    match OpenOptions::new().append(true).create(true).open(path) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(file = %path, %error, "cannot open the access log");
            None
        }
    }
}
