//! llama.cpp's number for what most of a file holds, `general.file_type` (`llama_ftype` in its llama.h).

/// A name of ours (a block format or a mixture), what llama.cpp calls such a file behind `LLAMA_FTYPE_`, and its number. A file that holds one K-quant
/// alone has no number of its own; the small mixture is the nearest.
pub const FILE_TYPES: [(&str, &str, u32); 23] = [
    ("f32", "ALL_F32", 0),
    ("f16", "MOSTLY_F16", 1),
    ("q4_0", "MOSTLY_Q4_0", 2),
    ("q4_1", "MOSTLY_Q4_1", 3),
    ("q8_0", "MOSTLY_Q8_0", 7),
    ("q5_0", "MOSTLY_Q5_0", 8),
    ("q5_1", "MOSTLY_Q5_1", 9),
    ("q2_k", "MOSTLY_Q2_K", 10),
    ("q3_k", "MOSTLY_Q3_K_S", 11),
    ("q3_k_m", "MOSTLY_Q3_K_M", 12),
    ("q4_k", "MOSTLY_Q4_K_S", 14),
    ("q4_k_s", "MOSTLY_Q4_K_S", 14),
    ("q4_k_m", "MOSTLY_Q4_K_M", 15),
    ("q5_k", "MOSTLY_Q5_K_S", 16),
    ("q5_k_s", "MOSTLY_Q5_K_S", 16),
    ("q5_k_m", "MOSTLY_Q5_K_M", 17),
    ("q6_k", "MOSTLY_Q6_K", 18),
    ("iq4_nl", "MOSTLY_IQ4_NL", 25),
    ("iq4_xs", "MOSTLY_IQ4_XS", 30),
    ("bf16", "MOSTLY_BF16", 32),
    ("tq1_0", "MOSTLY_TQ1_0", 36),
    ("tq2_0", "MOSTLY_TQ2_0", 37),
    ("mxfp4", "MOSTLY_MXFP4_MOE", 38),
];

/// The number for a file whose matrices are of this format or mixture.
#[must_use]
pub fn file_type(name: &str) -> Option<u32> {
    let row = FILE_TYPES.iter().find(|(ours, _, _)| *ours == name);
    row.map(|(_, _, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dram_core::quant::FORMATS;

    #[test]
    fn every_format_has_a_number() {
        for format in FORMATS {
            assert!(file_type(format.name).is_some(), "{}", format.name);
        }
    }
}
