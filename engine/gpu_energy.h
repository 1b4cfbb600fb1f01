// Energy that a GPU says it has taken.
#pragma once

#include <optional>

namespace nf {

/// Joules that GPU `index` has taken since its driver was loaded, by all who use it; makes no
/// context. Empty where it does not tell, as GPUs before Volta, or this build has no CUDA.
std::optional<double> cuda_joules(int index);

}  // namespace nf
