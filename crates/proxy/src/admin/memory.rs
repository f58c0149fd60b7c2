//! How much memory does the process use? `/memory` and the gauges `server.memory_*`.

use lateen_telemetry::admin::{Answer, Request};
use serde_json::json;

use super::{Source, json};

/// What the kernel knows of the process's memory, in bytes; all 0 where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident pages that belong to no file: what was allocated and touched.
    pub(super) allocated: u64,
    /// The size of the data segment: what was asked of the kernel.
    pub(super) heap: u64,
    /// Resident pages of every kind.
    pub(super) resident: u64,
}

impl Memory {
    /// Reads `/proc/self/status`.
    pub(super) fn now() -> Self {
        std::fs::read_to_string("/proc/self/status").map(|status| Self::parse(&status)).unwrap_or_default()
    }

    fn parse(status: &str) -> Self {
        let bytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Self {
            allocated: bytes("RssAnon").unwrap_or(0),
            heap: bytes("VmData").unwrap_or(0),
            resident: bytes("VmRSS").unwrap_or(0),
        }
    }
}

pub(super) fn answer(_: &Source, _: &Request) -> Answer {
    let memory = Memory::now();
    // What Envoy knows of its allocator beyond this is 0 here: memory is not asked for in page heaps or thread caches.
    Answer::json(json::pretty(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_bytes_and_missing_ones_are_zero() {
        let status = "Name:\tx\nVmRSS:\t    7540 kB\nRssAnon:\t    2048 kB\nVmData:\t broken kB\n";
        assert_eq!(Memory::parse(status), Memory { allocated: 2048 << 10, heap: 0, resident: 7540 << 10 });
        assert_eq!(Memory::parse(""), Memory::default());
    }
}
