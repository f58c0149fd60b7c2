//! Are two values the very same one? Worlds share what did not change, so addresses tell what a change cannot have
//! touched.

/// The address of a value, to be compared with others as long as the worlds that the values belong to live.
pub(crate) fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value).addr()
}
