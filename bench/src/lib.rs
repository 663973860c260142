//! The benches of Dram; see `benches/`: the kernels, the thread pool, whole models.
