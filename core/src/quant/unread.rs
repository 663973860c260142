//! Formats that are known by name and size only: a file that holds them can be listed, and a model that needs them is refused.
//!
//! Numbers and sizes: GGML's `ggml.h` and `ggml-common.h`.

use super::{Codec, Dot, Format};

/// Every format that the runtime knows and cannot read.
pub(crate) static UNREAD: &[Format] = &[
    unread("q8_1", 9, 32, 36),
    unread("q8_k", 15, 256, 292),
    unread("iq2_xxs", 16, 256, 66),
    unread("iq2_xs", 17, 256, 74),
    unread("iq3_xxs", 18, 256, 98),
    unread("iq1_s", 19, 256, 50),
    unread("iq3_s", 21, 256, 110),
    unread("iq2_s", 22, 256, 82),
    unread("i8", 24, 1, 1),
    unread("i16", 25, 1, 2),
    unread("i32", 26, 1, 4),
    unread("i64", 27, 1, 8),
    unread("f64", 28, 1, 8),
    unread("iq1_m", 29, 256, 56),
    unread("nvfp4", 40, 64, 36),
    unread("q1_0", 41, 128, 18),
    unread("q2_0", 42, 64, 18),
];

const fn unread(name: &'static str, ggml_id: u32, block: usize, block_bytes: usize) -> Format {
    Format {
        name,
        ggml_id,
        block,
        block_bytes,
        codec: Codec {
            quantize: |_, blocks| blocks.fill(0),
            dequantize: |_, values| values.fill(f32::NAN),
            quantize_dequantize: |_, values| values.fill(f32::NAN),
        },
        weighted: None,
        dot: Dot::Float(|_, _| f32::NAN),
    }
}
