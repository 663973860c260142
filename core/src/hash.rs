//! Hashes of 64 bits that notice what changed by accident. No defence against someone who wants a collision.
//!
//! FNV-1a: <http://www.isthe.com/chongo/tech/comp/fnv/>.

/// What FNV-1a of 64 bits begins with.
pub const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// What FNV-1a of 64 bits multiplies with.
pub const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a of bytes, or likewise of longer integers.
pub fn fnv1a<T: Into<u64>>(items: impl IntoIterator<Item = T>) -> u64 {
    let items = items.into_iter();
    items.fold(FNV_BASIS, |hash, item| {
        (hash ^ item.into()).wrapping_mul(FNV_PRIME)
    })
}

/// FNV-1a over 64-bit words instead of bytes, with a shift after each so that high bits reach low ones.
/// Every step is a bijection of the state: a single changed word always changes the result.
#[derive(Clone)]
pub(crate) struct Hash {
    state: u64,
    /// Bytes of a word that is not complete.
    part: [u8; 8],
    length: u64,
}

impl Default for Hash {
    fn default() -> Self {
        Hash {
            state: FNV_BASIS,
            part: [0; 8],
            length: 0,
        }
    }
}

impl Hash {
    /// Adds `bytes`; how they are portioned makes no difference.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        let begun = (self.length % 8) as usize;
        self.length += bytes.len() as u64;
        if begun > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(8 - begun));
            self.part[begun..begun + head.len()].copy_from_slice(head);
            bytes = rest;
            if begun + head.len() < 8 {
                return;
            }
            self.word(u64::from_le_bytes(self.part));
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.part[..rest.len()].copy_from_slice(rest);
    }

    fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(FNV_PRIME);
        self.state ^= self.state >> 32;
    }

    /// The hash of all bytes so far.
    pub(crate) fn finish(mut self) -> u64 {
        let begun = (self.length % 8) as usize;
        self.part[begun..].fill(0);
        self.word(u64::from_le_bytes(self.part));
        self.word(self.length);
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::{Hash, fnv1a};

    #[test]
    fn fnv1a_of_the_published_examples() {
        assert_eq!(fnv1a(*b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(*b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(*b"foobar"), 0x8594_4171_f739_67e8);
    }

    fn hash(bytes: &[u8], portion: usize) -> u64 {
        let mut hash = Hash::default();
        bytes.chunks(portion).for_each(|part| hash.update(part));
        hash.finish()
    }

    #[test]
    fn portions_make_no_difference_and_every_bit_does() {
        let bytes: Vec<u8> = (0..53u8).collect();
        let whole = hash(&bytes, 53);
        assert!((1..53).all(|portion| hash(&bytes, portion) == whole));
        for bit in 0..53 * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash(&other, 53), whole, "bit {bit}");
        }
        assert_ne!(hash(&bytes[..52], 52), whole);
        assert_ne!(hash(&[0; 7], 7), hash(&[0; 8], 8));
    }
}
