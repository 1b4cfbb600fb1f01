// How long idle threads of OpenMP spin before they sleep.
#pragma once

namespace nf::tools {

/// Starts this program anew, once, with GOMP_SPINCOUNT=1000 and KMP_BLOCKTIME=1, unless the user
/// has set these or OMP_WAIT_POLICY: OpenMP reads them while it is loaded, before main. GNU's
/// default spins for milliseconds after each operator, which takes the core from whatever else runs
/// there, the thread that is waited for included. Two cores, a compiler beside: VGG-11 (batch 16)
/// 108 images/s by default, 149 to 160 with 500 to 2,000 turns; alone, both within 4 % of each
/// other. Call it first in main. It returns when nothing is to be done or the system refuses.
void limit_thread_spinning(char** argv);

}  // namespace nf::tools
