// All that a program needs to bring its own net, data and auxiliary networks, to plan them under a
// budget and to train them.
#pragma once

#include "engine/context.h"
#include "engine/error.h"
#include "engine/ops/ops.h"
#include "engine/tensor.h"
#include "engine/text.h"
#include "neuroflux/auxiliary.h"
#include "neuroflux/exits.h"
#include "neuroflux/local_net.h"
#include "neuroflux/local_trainer.h"
#include "nn/accumulate_trainer.h"
#include "nn/bp_trainer.h"
#include "nn/checkpoint_trainer.h"
#include "nn/data/image_set.h"
#include "nn/data/training_data.h"
#include "nn/fit.h"
#include "nn/layers.h"
#include "nn/model.h"
#include "nn/models/registry.h"
#include "nn/safetensors.h"
#include "nn/stage_batch.h"
