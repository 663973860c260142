//! IEEE binary16 and bfloat16 conversions without branches, so that loops over them vectorise.

/// binary16 to f32, exact.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let magnitude = (bits as u32 & 0x7fff) << 13;
    // The exponent's bias differs by 112; multiplying by 2^112 also makes subnormals right.
    let rebased = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let infinite_or_nan = if magnitude >= 0x0f80_0000 {
        0x7f80_0000
    } else {
        0
    };
    f32::from_bits(sign | rebased.to_bits() | infinite_or_nan)
}

/// f32 to binary16, nearest, ties to even; too large becomes infinite.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Adding 0.5 leaves the subnormal's bits, rounded by the adder, at the bottom of the mantissa.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let infinite = 0x7c00;
    let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    let finite = if magnitude < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    let not_nan = if magnitude >= 0x4780_0000 {
        infinite
    } else {
        finite
    };
    let result = if magnitude > 0x7f80_0000 {
        nan
    } else {
        not_nan
    };
    (sign | result) as u16
}

/// bfloat16 to f32, exact.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// f32 to bfloat16, nearest, ties to even; a NaN stays one.
#[inline(always)]
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 {
        nan
    } else {
        rounded
    }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{bits:#x}"
            );
            assert_eq!(bf16_to_f32(bits).to_bits() >> 16, bits as u32);
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        // Each half, its neighbours' midpoints, and a nudge to either side of them.
        for bits in 0..0x7c00u16 {
            let (low, high) = (f16_to_f32(bits), f16_to_f32(bits + 1).min(65536.0));
            let middle = (low + high) / 2.0;
            for value in [low, middle, middle.next_down(), middle.next_up()] {
                for value in [value, -value] {
                    assert_eq!(f32_to_f16(value), f16::from_f32(value).to_bits(), "{value}");
                    assert_eq!(
                        f32_to_bf16(value),
                        bf16::from_f32(value).to_bits(),
                        "{value}"
                    );
                }
            }
        }
        for value in [
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            65519.99,
            65520.0,
            1e-30,
            f32::MIN_POSITIVE,
        ] {
            assert_eq!(f32_to_f16(value), f16::from_f32(value).to_bits(), "{value}");
            assert_eq!(
                f32_to_bf16(value),
                bf16::from_f32(value).to_bits(),
                "{value}"
            );
        }
        assert!(
            f16::from_bits(f32_to_f16(f32::NAN)).is_nan()
                && bf16::from_bits(f32_to_bf16(f32::NAN)).is_nan()
        );
    }
}
