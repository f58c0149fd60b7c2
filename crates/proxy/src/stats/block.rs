//! How does a worker count without asking anybody? In its own block of named fields, one block per scope and worker.
//!
//! Invariant: a block has one writer, its worker (see `lateen_telemetry::counter`); whoever reads sums over the blocks.

use std::sync::OnceLock;

use lateen_telemetry::{Counter, Gauge, Histogram};

/// Fields that count, in the order of their names.
pub(crate) trait Block: Default {
    /// Envoy's names of the counters.
    const COUNTERS: &'static [&'static str];
    /// Envoy's names of the gauges.
    const GAUGES: &'static [&'static str];
    /// Envoy's names of the histograms.
    const HISTOGRAMS: &'static [&'static str];

    /// The counter of a name's index.
    fn counter(&self, index: usize) -> Option<&Counter>;
    /// The gauge of a name's index.
    fn gauge(&self, index: usize) -> Option<&Gauge>;
    /// The histogram of a name's index.
    fn histogram(&self, index: usize) -> Option<&Histogram>;
}

/// Declares a block: the fields are named as Envoy names the statistics. Other fields follow under `others`.
macro_rules! block {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            counters { $($counter:ident),* $(,)? }
            gauges { $($gauge:ident),* $(,)? }
            histograms { $($histogram:ident),* $(,)? }
            others { $($(#[$other_attribute:meta])* $other:ident: $other_type:ty),* $(,)? }
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        pub struct $name {
            $(#[doc = concat!("Counter `", stringify!($counter), "`.")] pub $counter: ::lateen_telemetry::Counter,)*
            $(#[doc = concat!("Gauge `", stringify!($gauge), "`.")] pub $gauge: ::lateen_telemetry::Gauge,)*
            $(
                #[doc = concat!("Histogram `", stringify!($histogram), "`.")]
                pub $histogram: ::lateen_telemetry::Histogram,
            )*
            $($(#[$other_attribute])* pub $other: $other_type,)*
        }

        impl $crate::stats::block::Block for $name {
            const COUNTERS: &'static [&'static str] = &[$(stringify!($counter)),*];
            const GAUGES: &'static [&'static str] = &[$(stringify!($gauge)),*];
            const HISTOGRAMS: &'static [&'static str] = &[$(stringify!($histogram)),*];

            fn counter(&self, index: usize) -> Option<&::lateen_telemetry::Counter> {
                let fields: &[&::lateen_telemetry::Counter] = &[$(&self.$counter),*];
                fields.get(index).copied()
            }

            fn gauge(&self, index: usize) -> Option<&::lateen_telemetry::Gauge> {
                let fields: &[&::lateen_telemetry::Gauge] = &[$(&self.$gauge),*];
                fields.get(index).copied()
            }

            fn histogram(&self, index: usize) -> Option<&::lateen_telemetry::Histogram> {
                let fields: &[&::lateen_telemetry::Histogram] = &[$(&self.$histogram),*];
                fields.get(index).copied()
            }
        }
    };
}
pub(crate) use block;

/// One block per worker, made when the worker first counts.
#[derive(Debug)]
pub struct PerWorker<T> {
    blocks: Box<[OnceLock<Box<T>>]>,
}

impl<T: Default> PerWorker<T> {
    /// Room for the blocks of this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { blocks: (0..workers.max(1)).map(|_| OnceLock::new()).collect() }
    }

    /// The block of a worker, for that worker to count in.
    ///
    /// # Panics
    /// When there are not so many workers.
    #[inline]
    #[must_use]
    pub fn worker(&self, worker: usize) -> &T {
        self.blocks[worker].get_or_init(Box::default)
    }

    /// The blocks that exist, with the number of their worker.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.blocks.iter().enumerate().filter_map(|(worker, block)| Some((worker, block.get()?.as_ref())))
    }

    /// Count of workers that there is room for.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.blocks.len()
    }
}
