// The parts that instances are put together from; for op_bench*.cpp only.
#pragma once

#include "tests/support/op_bench.h"

namespace nf::test {

double rms(const Values& values);
/// Largest absolute value, 0 for none.
double largest(const Values& values);
/// The size that a sum of `length` terms of random sign and size `term` reaches.
Bound sum_of(std::int64_t length, double term);

/// The type that the instances being built are for.
DType storage();
bool has_16_bits(DType dtype);
/// An instance with its name, output shape and output gradient.
Instance start(const std::string& op, const std::string& name, const Shape& output);
void add_input(Instance& instance, const std::string& name, const Shape& shape, double low = -1,
               double high = 1);
/// An input that is f32 beside others of 16 bits.
void add_statistics(Instance& instance, const std::string& name, const Shape& shape,
                    double low = -1, double high = 1);
/// Input `i`, or an empty tensor where there is none.
Tensor optional_input(const std::vector<Tensor>& inputs, std::size_t i);

/// Moves x and beta until all of `z`, to which the activation is applied, keep their distance from
/// its kinks, which storage in 16 bits moves: rounding or a finite difference would cross them.
void move_from_kinks(Instance& instance, Activation activation, double distance,
                     const std::function<Values()>& z);

std::vector<Instance> conv2d_instances();
std::vector<Instance> conv2d_fused_instances();
std::vector<Instance> linear_instances();
std::vector<Instance> batch_norm_train_instances();
std::vector<Instance> batch_norm_eval_instances();
std::vector<Instance> batch_norm_fold_instances();
std::vector<Instance> max_pool_instances();
std::vector<Instance> avg_pool_instances();
std::vector<Instance> adaptive_avg_pool_instances();
std::vector<Instance> relu_instances();
std::vector<Instance> relu6_instances();
std::vector<Instance> add_instances();
std::vector<Instance> scale_instances();
std::vector<Instance> sum_instances();
std::vector<Instance> mean_instances();
std::vector<Instance> unrecorded_reduction_instances();
std::vector<Instance> reshape_instances();
std::vector<Instance> dropout_instances();
std::vector<Instance> cross_entropy_instances();
std::vector<Instance> cross_entropy_with_gradient_instances();

}  // namespace nf::test
