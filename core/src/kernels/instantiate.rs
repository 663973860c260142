//! Compiles the scalar specification again with an instruction set's features, and puts the functions into a table.

/// `table!(name, "features", Lanes, [R, T], int8: [(id, fn)…], parts: [RowLanes, H, T], few: N, one_token: [(id, fn)…], most: [Multiply, N])` defines `KERNELS`
/// in an instruction set's file: the float products, attention and elementwise functions for `Lanes`, the int8 products that the file wrote by hand,
/// the product of unpacked parts for `RowLanes` (or, with `parts: [RowLanes, by product]`, the file's own), for Q8_0 and Q4_0 with up to `few` tokens
/// and for the others with one token the product that keeps no unpacked weights, but for those that the file has of its own for one token, and the
/// loops that measure what the device can do at most, with `N` sums.
macro_rules! table {
    ($name:literal, $features:literal, $lanes:ty, [$rows:literal, $tokens:literal], int8: [$(($id:literal, $int8:path)),* $(,)?], parts: $parts:tt, few: $few:literal, one_token: [$(($own:literal, $one_token:path)),* $(,)?], most: [$multiply:ty, $sums:literal]) => {
        pub(in crate::kernels) static KERNELS: crate::kernels::Kernels = crate::kernels::Kernels {
            name: $name,
            codecs: &[
                (1, table!(@codec $features, floats, F16)),
                (30, table!(@codec $features, floats, Bf16)),
                (8, table!(@codec $features, q8_0)),
                (2, table!(@codec $features, q4_0)),
            ],
            products: &[
                (0, table!(@fn $features, crate::kernels::lanes::product::<$lanes, crate::quant::floats::F32, $rows, $tokens>, (tile: &crate::kernels::product::Tile<'_>))),
                (1, table!(@fn $features, crate::kernels::lanes::product::<$lanes, crate::quant::floats::F16, $rows, $tokens>, (tile: &crate::kernels::product::Tile<'_>))),
                (30, table!(@fn $features, crate::kernels::lanes::product::<$lanes, crate::quant::floats::Bf16, $rows, $tokens>, (tile: &crate::kernels::product::Tile<'_>))),
                $(($id, $int8)),*
            ],
            one_token: &[$(($own, $one_token)),*],
            unpackers: &[
                table!(@unpack $features, $parts, 8, Q8_0, $few),
                table!(@unpack $features, $parts, 2, Q4_0, $few),
                table!(@unpack $features, $parts, 3, Q4_1, 1),
                table!(@unpack $features, $parts, 6, Q5_0, 1),
                table!(@unpack $features, $parts, 7, Q5_1, 1),
                table!(@unpack $features, $parts, 10, Q2K, 1),
                table!(@unpack $features, $parts, 11, Q3K, 1),
                table!(@unpack $features, $parts, 12, Q4K, 1),
                table!(@unpack $features, $parts, 13, Q5K, 1),
                table!(@unpack $features, $parts, 14, Q6K, 1),
                table!(@unpack $features, $parts, 20, Iq4Nl, 1),
                table!(@unpack $features, $parts, 23, Iq4Xs, 1),
                table!(@unpack $features, $parts, 34, Tq1_0, 1),
                table!(@unpack $features, $parts, 35, Tq2_0, 1),
                table!(@unpack $features, $parts, 39, Mxfp4, 1),
            ],
            // Kind's order.
            parts: [
                table!(@parts $features, $parts, Narrow),
                table!(@parts $features, $parts, Plain),
                table!(@parts $features, $parts, Wide),
                table!(@parts $features, $parts, Minimums),
                table!(@parts $features, $parts, Halves),
                table!(@parts $features, $parts, HalvesMinimums),
            ],
            quantize_activations: table!(@fn $features, crate::quant::activation::quantize_blocks, (source: &[f32], out: crate::quant::activation::QuantizedMut<'_>)),
            round_activations: table!(@fn $features, crate::quant::activation::round_blocks, (source: &[f32], rounded: &mut [f32])),
            scores: table!(@fn $features, crate::kernels::attention_lanes::scores::<$lanes, half::f16>, (scores: crate::kernels::Scores<'_>)),
            weighted_sum: table!(@fn $features, crate::kernels::attention_lanes::weighted_sum::<$lanes, half::f16>, (weighted_sum: crate::kernels::WeightedSum<'_>)),
            scores_q8_0: table!(@fn $features, crate::kernels::attention_lanes::scores::<$lanes, u8>, (scores: crate::kernels::Scores<'_, u8>)),
            weighted_sum_q8_0: table!(@fn $features, crate::kernels::attention_lanes::weighted_sum::<$lanes, u8>, (weighted_sum: crate::kernels::WeightedSum<'_, u8>)),
            narrow: table!(@fn $features, crate::kernels::lanes::narrow::<$lanes>, (source: &[f32], out: &mut [half::f16])),
            rms_norm: table!(@fn $features, crate::kernels::scalar::rms_norm, (x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32])),
            rms_norm_in_place: table!(@fn $features, crate::kernels::scalar::rms_norm_in_place, (x: &mut [f32], weight: &[f32], epsilon: f32)),
            layer_norm: table!(@fn $features, crate::kernels::scalar::layer_norm, (x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32)),
            softmax_exp: table!(@fn $features, crate::kernels::scalar::softmax_exp, (values: &mut [f32], found: &mut [f32; 2])),
            softmax_merge: table!(@fn $features, crate::kernels::scalar::softmax_merge, (out: &mut [f32], state: &mut [f32; 2], part: &[f32])),
            silu: table!(@fn $features, crate::kernels::scalar::silu, (x: &mut [f32])),
            sigmoid_mul: table!(@fn $features, crate::kernels::scalar::sigmoid_mul, (x: &mut [f32], gate: &[f32])),
            delta_rule: table!(@fn $features, crate::kernels::scalar::delta_rule, (state: &mut [f32], token: crate::kernels::StateToken<'_>, out: &mut [f32])),
            state_space: table!(@fn $features, crate::kernels::scalar::state_space, (state: &mut [f32], token: crate::kernels::StateToken<'_>, out: &mut [f32])),
            silu_mul: table!(@fn $features, crate::kernels::scalar::silu_mul, (gate: &mut [f32], up: &[f32])),
            gelu_mul: table!(@fn $features, crate::kernels::scalar::gelu_mul, (gate: &mut [f32], up: &[f32])),
            gelu: table!(@fn $features, crate::kernels::scalar::gelu, (x: &mut [f32])),
            soft_cap: table!(@fn $features, crate::kernels::scalar::soft_cap, (x: &mut [f32], cap: f32)),
            add: table!(@fn $features, crate::kernels::scalar::add, (x: &mut [f32], y: &[f32])),
            scale: table!(@fn $features, crate::kernels::scalar::scale, (x: &mut [f32], factor: f32)),
            rope: table!(@fn $features, crate::kernels::scalar::rope, (x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], layout: crate::kernels::RopeLayout)),
            read: table!(@fn $features, crate::kernels::limits::read::<$lanes>, (memory: &[crate::kernels::Words]) -> f32),
            multiply_adds: table!(@fn $features, crate::kernels::limits::multiply_adds::<$multiply, $sums>, (rounds: usize) -> u64),
        };
    };
    (@codec $features:literal, $module:ident $(, $float:ident)?) => {
        crate::quant::Codec {
            quantize: table!(@fn $features, crate::quant::$module::quantize $(::<crate::quant::floats::$float, 2>)?, (source: &[f32], blocks: &mut [u8])),
            dequantize: table!(@fn $features, crate::quant::$module::dequantize $(::<crate::quant::floats::$float, 2>)?, (blocks: &[u8], values: &mut [f32])),
            quantize_dequantize: table!(@fn $features, crate::quant::$module::quantize_dequantize $(::<crate::quant::floats::$float, 2>)?, (source: &[f32], rounded: &mut [f32])),
        }
    };
    (@unpack $features:literal, [$row_lanes:ty, $($_product:tt)*], $id:literal, $format:ident, $few:literal) => {
        crate::kernels::product::Unpacker {
            ggml_id: $id,
            unpack: table!(@fn $features, crate::kernels::unpack::unpack::<crate::kernels::unpack::$format, $row_lanes>, (rows: crate::kernels::product::Rows, parts: usize, packed: *mut ())),
            lanes: <$row_lanes as crate::kernels::row_lanes::RowLanes>::LANES,
            few_tokens: table!(@fn $features, crate::kernels::few_tokens::few_tokens::<crate::kernels::unpack::$format, $row_lanes, $few>, (tile: &crate::kernels::product::Tile<'_>)),
            few: $few,
        }
    };
    (@parts $features:literal, [$row_lanes:ty, by $($product:ident)::+], $kind:ident) => {
        table!(@fn $features, $($product)::+::<crate::kernels::kinds::$kind>, (tile: &crate::kernels::product::Tile<'_>, unpack: Option<crate::kernels::product::Unpack>))
    };
    (@parts $features:literal, [$row_lanes:ty, $registers:literal, $tokens:literal], $kind:ident) => {
        table!(@fn $features, crate::kernels::block_product::product::<$row_lanes, crate::kernels::kinds::$kind, $registers, $tokens>, (tile: &crate::kernels::product::Tile<'_>, unpack: Option<crate::kernels::product::Unpack>))
    };
    (@fn $features:literal, $function:expr, ($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {{
        #[target_feature(enable = $features)]
        unsafe fn compiled($($argument: $kind),*) $(-> $result)? {
            // SAFETY: the caller's: lengths are checked and the processor has the features.
            #[allow(unused_unsafe, reason = "some of the functions are safe")]
            unsafe { ($function)($($argument),*) }
        }
        compiled
    }};
}
pub(super) use table;
