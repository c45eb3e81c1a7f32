// rope: rotary position embedding in NeoX pairs.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// rope: with R = rotary_dim, position p = first_position + t, angle a_i = p * theta^(-2i/R), for i < R/2:
///   y_i       = x_i cos(a_i) - x_{i+R/2} sin(a_i)
///   y_{i+R/2} = x_{i+R/2} cos(a_i) + x_i sin(a_i)
/// and y_i = x_i for i >= R, in every head alike.
/// shapes   x, y [T,heads,D] f32   R even, 0 <= R <= D   T >= 0
/// numeric  angles, sines and cosines in f64, rounded to f32 once: exact enough at any position
/// effects  writes y, which may be x; scratch from cx.arena
void rope(Context& cx, const Tensor& x, int64_t first_position, int64_t rotary_dim, double theta, Tensor& y);

/// rope_vjp: rotation by -a_i:
///   dx_i = dy_i cos(a_i) + dy_{i+R/2} sin(a_i);   dx_{i+R/2} = dy_{i+R/2} cos(a_i) - dy_i sin(a_i);   dx_i = dy_i for
///   i >= R
/// effects  overwrites dx [T,heads,D] f32, which may be dy; scratch from cx.arena
void rope_vjp(Context& cx, const Tensor& dy, int64_t first_position, int64_t rotary_dim, double theta, Tensor& dx);

}  // namespace nibble::ops
