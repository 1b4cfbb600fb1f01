#include "nn/models/registry.h"

#include <cctype>
#include <functional>

#include "engine/text.h"
#include "nn/models/mobilenet.h"
#include "nn/models/resnet.h"
#include "nn/models/vgg.h"

namespace nf::nn {
namespace {

struct Constructor {
  std::string name;
  std::function<std::unique_ptr<Model>(const ModelOptions&)> make;
};

const std::vector<Constructor>& constructors() {
  static const std::vector<Constructor> table = [] {
    std::vector<Constructor> list;
    for (const int depth : {11, 13, 16, 19})
      list.push_back({fmt::format("vgg{}", depth),
                      [depth](const ModelOptions& options) { return make_vgg(depth, options); }});
    for (const int depth : {18, 34, 50})
      list.push_back({fmt::format("resnet{}", depth), [depth](const ModelOptions& options) {
                        return make_resnet(depth, options);
                      }});
    list.push_back({"mobilenet_v1", make_mobilenet_v1});
    list.push_back({"mobilenet_v2", make_mobilenet_v2});
    return list;
  }();
  return table;
}

/// In lower case, without hyphens and underscores.
std::string plain(std::string_view name) {
  std::string result;
  for (const char c : name)
    if (c != '-' && c != '_')
      result += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

std::unique_ptr<Model> make_model(std::string_view name, const ModelOptions& options) {
  const std::string wanted = plain(name);
  std::vector<std::string> known;
  for (const Constructor& model : constructors()) {
    if (plain(model.name) == wanted) return model.make(options);
    known.push_back(plain(model.name));
  }
  const std::string nearest = nearest_name(wanted, known);
  for (const Constructor& model : constructors())
    if (plain(model.name) == nearest)
      fail("model: there is none named \"{}\"; did you mean {}?", name, model.name);
  fail("model: there is none named \"{}\"", name);
}

const std::vector<std::string>& model_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Constructor& model : constructors()) list.push_back(model.name);
    return list;
  }();
  return names;
}

}  // namespace nf::nn
