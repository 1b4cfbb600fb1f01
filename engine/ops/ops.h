// All operators.
#pragma once

#include "engine/ops/add.h"
#include "engine/ops/batch_norm.h"
#include "engine/ops/cast.h"
#include "engine/ops/conv2d.h"
#include "engine/ops/dropout.h"
#include "engine/ops/linear.h"
#include "engine/ops/pool2d.h"
#include "engine/ops/prepare_images.h"
#include "engine/ops/random.h"
#include "engine/ops/reduce.h"
#include "engine/ops/relu.h"
#include "engine/ops/reshape.h"
#include "engine/ops/scale.h"
#include "engine/ops/softmax_cross_entropy.h"
