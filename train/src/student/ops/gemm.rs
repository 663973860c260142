//! Matrix products on row-major slices, on the calling thread only.

use ::gemm::Parallelism;

use super::bf16;

/// What products are computed with; sums are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    #[default]
    F32,
    /// Operands rounded to bf16.
    Bf16,
}

/// Rows of one operand of a product: the whole of a slice read as `[rows, cols]`, or its transpose.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl Products {
    /// `y [n, out] = x [n, in] · w [out, in]ᵀ`, or `y +=` when `add`.
    pub fn linear(
        self,
        y: &mut [f32],
        x: &[f32],
        w: &[f32],
        [n, out, input]: [usize; 3],
        add: bool,
    ) {
        let lhs = View {
            data: x,
            row_stride: input,
            col_stride: 1,
        };
        let rhs = View {
            data: w,
            row_stride: 1,
            col_stride: input,
        };
        self.product(y, lhs, rhs, [n, out, input], add);
    }

    /// `dx [n, in] = dy [n, out] · w [out, in]`, or `dx +=` when `add`.
    pub fn linear_input_gradient(
        self,
        dx: &mut [f32],
        dy: &[f32],
        w: &[f32],
        [n, out, input]: [usize; 3],
        add: bool,
    ) {
        let lhs = View {
            data: dy,
            row_stride: out,
            col_stride: 1,
        };
        let rhs = View {
            data: w,
            row_stride: input,
            col_stride: 1,
        };
        self.product(dx, lhs, rhs, [n, input, out], add);
    }

    /// `dw [out, in] += dy [n, out]ᵀ · x [n, in]`.
    pub fn linear_weight_gradient(
        self,
        dw: &mut [f32],
        dy: &[f32],
        x: &[f32],
        [n, out, input]: [usize; 3],
    ) {
        let lhs = View {
            data: dy,
            row_stride: 1,
            col_stride: out,
        };
        let rhs = View {
            data: x,
            row_stride: input,
            col_stride: 1,
        };
        self.product(dw, lhs, rhs, [out, input, n], true);
    }

    /// `dst [m, n] (+)= lhs [m, k] · rhs [k, n]`.
    fn product(self, dst: &mut [f32], lhs: View, rhs: View, [m, n, k]: [usize; 3], add: bool) {
        assert_eq!(dst.len(), m * n, "product: destination is not [{m}, {n}]");
        assert_eq!(
            lhs.data.len(),
            m * k,
            "product: left side is not [{m}, {k}]"
        );
        assert_eq!(
            rhs.data.len(),
            k * n,
            "product: right side is not [{k}, {n}]"
        );
        if m == 0 || n == 0 {
            return;
        }
        match self {
            Products::F32 => product_f32(dst, lhs, rhs, [m, n, k], add),
            Products::Bf16 => bf16::product(dst, lhs, rhs, [m, n, k], add),
        }
    }
}

/// `dst [m, n] (+)= lhs [m, k] · rhs [k, n]`.
pub(super) fn product_f32(dst: &mut [f32], lhs: View, rhs: View, [m, n, k]: [usize; 3], add: bool) {
    assert!(dst.len() == m * n && lhs.data.len() == m * k && rhs.data.len() == k * n);
    // SAFETY: the three lengths were just checked, and the strides of a `View` walk a matrix of exactly that many elements.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
            add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
