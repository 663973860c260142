//! What layers are made of, in both directions: norms, products with their biases, and the branches that are added to the stream.

use std::ops::Range;

use dram_core::model::{Activation, HeadNorm, NormKind};

use super::{BranchTape, HeadNormTape, Net, sized};
use crate::student::layout::LinearRanges;
use crate::student::ops::elementwise::{
    add, add_rows_to, add_scaled, add_to_rows, geglu, geglu_backward, put_columns, swiglu,
    swiglu_backward, take_columns,
};
use crate::student::ops::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};

impl Net<'_> {
    /// `y` [n, d] = the norm of `x`; a copy where there is none.
    pub(super) fn normalise(
        &self,
        y: &mut [f32],
        inverse: &mut Vec<f32>,
        x: &[f32],
        norm: Option<&Range<usize>>,
    ) {
        let (d, eps) = (self.config.embedding_length, self.config.norm_eps);
        let Some(norm) = norm.map(|norm| self.at(norm)) else {
            y.copy_from_slice(x);
            return;
        };
        let inverse = sized(inverse, x.len() / d);
        match self.config.options.norm {
            NormKind::Rms => rms_norm(y, inverse, x, norm, eps),
            NormKind::Layer => layer_norm(y, inverse, x, norm, d, d, eps),
        }
    }

    /// `dx` += the gradient of [`Net::normalise`]'s `x`.
    pub(super) fn normalise_backward(
        &self,
        dx: &mut [f32],
        gradient: &mut [f32],
        dy: &[f32],
        (x, inverse): (&[f32], &[f32]),
        norm: Option<&Range<usize>>,
    ) {
        let d = self.config.embedding_length;
        let Some(norm) = norm else {
            add(dx, dy);
            return;
        };
        let (dw, w) = (&mut gradient[norm.clone()], self.at(norm));
        match self.config.options.norm {
            NormKind::Rms => rms_norm_backward(dx, dw, dy, x, inverse, w),
            NormKind::Layer => layer_norm_backward(dx, dw, dy, x, inverse, w, d, d),
        }
    }

    /// In place: the norm of queries or keys, the first `width` of each of `x`'s rows.
    pub(super) fn normalise_heads(
        &self,
        x: &mut [f32],
        tape: &mut HeadNormTape,
        norm: &Range<usize>,
        [width, stride]: [usize; 2],
        scratch: &mut Vec<f32>,
    ) {
        let (w, length) = (self.at(norm), self.head_norm_length(width));
        let values = x.len() / stride * width;
        let before = sized(&mut tape.before, values);
        take_columns(before, x, width, stride);
        let inverse = sized(&mut tape.inverse, values / length);
        let normed = sized(scratch, values);
        match self.config.options.norm {
            NormKind::Rms => rms_norm(normed, inverse, before, w, self.config.norm_eps),
            NormKind::Layer => {
                layer_norm(normed, inverse, before, w, 0, length, self.config.norm_eps)
            }
        }
        put_columns(x, normed, width, stride);
    }

    /// In place: from the gradient after [`Net::normalise_heads`] to that before it.
    pub(super) fn normalise_heads_backward(
        &self,
        dx: &mut [f32],
        gradient: &mut [f32],
        tape: &HeadNormTape,
        norm: &Range<usize>,
        [width, stride]: [usize; 2],
        room: &mut [Vec<f32>; 2],
    ) {
        let values = dx.len() / stride * width;
        let [dhead, draw] = room;
        let (dhead, draw) = (sized(dhead, values), sized(draw, values));
        take_columns(dhead, dx, width, stride);
        draw.fill(0.0);
        let (dw, w) = (&mut gradient[norm.clone()], self.at(norm));
        let HeadNormTape { before, inverse } = tape;
        match self.config.options.norm {
            NormKind::Rms => rms_norm_backward(draw, dw, dhead, before, inverse, w),
            NormKind::Layer => {
                let length = self.head_norm_length(width);
                layer_norm_backward(draw, dw, dhead, before, inverse, w, 0, length);
            }
        }
        put_columns(dx, draw, width, stride);
    }

    /// Values that are normalised together, of heads that are `width` long.
    fn head_norm_length(&self, width: usize) -> usize {
        match self.config.options.head_norm {
            Some(HeadNorm::Whole) => width,
            _ => self.config.head_dim,
        }
    }

    /// `y` [n, rows] = the product of `x` [n, cols] with a matrix, and its bias.
    pub(super) fn project(
        &self,
        y: &mut [f32],
        x: &[f32],
        linear: &LinearRanges,
        shape: [usize; 3],
    ) {
        let weight = self.at(&linear.weight);
        self.products.linear(y, x, weight, shape, false);
        if let Some(bias) = &linear.bias {
            add_to_rows(y, self.at(bias));
        }
    }

    /// Adds the gradients of [`Net::project`]'s matrix and bias.
    pub(super) fn project_backward(
        &self,
        gradient: &mut [f32],
        dy: &[f32],
        x: &[f32],
        linear: &LinearRanges,
        shape: [usize; 3],
    ) {
        let dw = &mut gradient[linear.weight.clone()];
        self.backward_products
            .linear_weight_gradient(dw, dy, x, shape);
        if let Some(bias) = &linear.bias {
            add_rows_to(&mut gradient[bias.clone()], dy);
        }
    }

    /// Whether a branch's product is added to the stream as it is.
    fn is_added_as_it_is(&self, post: Option<&Range<usize>>) -> bool {
        post.is_none() && self.config.options.residual_scale == 1.0
    }

    /// `stream` [m, d] += the product of `x` [m, cols] with a matrix, normalised by `post` and scaled.
    pub(super) fn add_branch(
        &self,
        stream: &mut [f32],
        x: &[f32],
        (linear, post): (&LinearRanges, Option<&Range<usize>>),
        tape: &mut BranchTape,
        scratch: &mut Vec<f32>,
        shape: [usize; 3],
    ) {
        if self.is_added_as_it_is(post) {
            let weight = self.at(&linear.weight);
            self.products.linear(stream, x, weight, shape, true);
            if let Some(bias) = &linear.bias {
                add_to_rows(stream, self.at(bias));
            }
            return;
        }
        let added = sized(&mut tape.added, stream.len());
        self.project(added, x, linear, shape);
        let scale = self.config.options.residual_scale;
        match post {
            None => add_scaled(stream, added, scale),
            Some(_) => {
                let normed = sized(scratch, stream.len());
                self.normalise(normed, &mut tape.inverse, added, post);
                add_scaled(stream, normed, scale);
            }
        }
    }

    /// Given `dstream` [m, d], adds the gradients of [`Net::add_branch`]'s weights; `dx` [m, cols] becomes that of its input.
    pub(super) fn add_branch_backward(
        &self,
        gradient: &mut [f32],
        (dx, x): (&mut [f32], &[f32]),
        (linear, post): (&LinearRanges, Option<&Range<usize>>),
        tape: &BranchTape,
        back: &mut Branches<'_>,
        shape: [usize; 3],
    ) {
        let dstream = back.dstream;
        let dadded: &[f32] = if self.is_added_as_it_is(post) {
            dstream
        } else {
            let scale = self.config.options.residual_scale;
            let scaled = sized(back.dscaled, dstream.len());
            scaled.fill(0.0);
            add_scaled(scaled, dstream, scale);
            match post {
                None => scaled,
                Some(_) => {
                    let dadded = sized(back.dbranch, dstream.len());
                    dadded.fill(0.0);
                    let of = (&*tape.added, &*tape.inverse);
                    self.normalise_backward(dadded, gradient, scaled, of, post);
                    dadded
                }
            }
        };
        self.project_backward(gradient, dadded, x, linear, shape);
        let weight = self.at(&linear.weight);
        let products = self.backward_products;
        products.linear_input_gradient(dx, dadded, weight, shape, false);
    }

    /// `y` [m, f] of gate and up [m, 2 · f].
    pub(super) fn activate(&self, y: &mut [f32], gate_up: &[f32]) {
        let f = self.config.feed_forward_length;
        match self.config.options.activation {
            Activation::GeluGated => geglu(y, gate_up, f),
            _ => swiglu(y, gate_up, f),
        }
    }

    /// Replaces `gate_up` by its gradient.
    pub(super) fn activate_backward(&self, gate_up: &mut [f32], dy: &[f32]) {
        let f = self.config.feed_forward_length;
        match self.config.options.activation {
            Activation::GeluGated => geglu_backward(gate_up, dy, f),
            _ => swiglu_backward(gate_up, dy, f),
        }
    }
}

/// The gradient of the stream that a branch was added to, and room.
pub(super) struct Branches<'a> {
    pub(super) dstream: &'a [f32],
    pub(super) dbranch: &'a mut Vec<f32>,
    pub(super) dscaled: &'a mut Vec<f32>,
}
