//! [`Kind`] as types, for each of which products are compiled.

use crate::quant::blocks::Kind;

pub(super) trait PartKind {
    const KIND: Kind;
    const HALVES: bool = Self::KIND.halves();
    const MINIMUMS: bool = Self::KIND.minimums();
}

macro_rules! kinds {
    ($($name:ident),*) => {$(
        pub(super) struct $name;
        impl PartKind for $name {
            const KIND: Kind = Kind::$name;
        }
    )*};
}
kinds!(Narrow, Plain, Wide, Minimums, Halves, HalvesMinimums);
