// Diagrams: lines and marks over two axes, areas stacked on each other, stacked bars. Each becomes
// an HTML figure of its own with its legend.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "neuroflux/report/svg.h"

namespace nf::report {

/// Texts of a figure; all are escaped where they are drawn.
struct FigureText {
  std::string title;
  std::string caption;  ///< below; may be empty
};

struct Axis {
  std::string label;
  std::function<std::string(double)> format;
  bool logarithmic = false;  ///< then all values must be positive
  bool from_zero = false;
  int tick_base = 10;  ///< 1024 for bytes
  bool ticks = true;
  bool tight = false;  ///< from the least to the largest value, without room beyond
};

struct Mark {
  double x = 0.0, y = 0.0;
  std::string tooltip = {};
  std::string label = {};  ///< beside it, where there is room
  bool ringed = false;
  bool faint = false;
};

/// Of one colour; the colour is a class of the style sheet, such as "c2".
struct Series {
  std::string name;  ///< in the legend, once for each name; empty: not there
  std::string colour;
  std::vector<Svg::Point> line = {};
  bool steps = false;  ///< the line goes on level until its next point
  int dashes = 0;      ///< 0: whole; 1, 2, 3: other patterns
  std::vector<Mark> marks = {};
  bool square = false;  ///< marks that are no discs
  std::string tooltip = {};
};

/// Levels over common places, each on top of those before.
struct StackedAreas {
  std::vector<double> x;
  struct Level {
    std::string name, colour;
    std::vector<double> heights;  ///< as many as x
  };
  std::vector<Level> levels;
};

struct ReferenceLine {
  double y = 0.0;
  std::string label;
};

/// A range of x with a name, behind everything.
struct Band {
  double from = 0.0, to = 0.0;
  std::string name;
};

struct XyPlot {
  FigureText text;
  Axis x, y;
  StackedAreas areas = {};
  std::vector<Series> series = {};
  std::vector<ReferenceLine> references = {};
  std::vector<Band> bands = {};
  double width = 640.0, height = 340.0;
};

/// Throws Error for values that are not finite, areas of unequal lengths, and values that are not
/// positive on a logarithmic axis. A plot without any value says that there is none.
std::string draw(const XyPlot& plot);

/// Horizontal bars of parts, one below the other.
struct BarPlot {
  FigureText text;
  Axis x;
  std::vector<std::string> names;    ///< of the parts, in the legend
  std::vector<std::string> colours;  ///< of each part
  struct Bar {
    std::string label;
    std::vector<double> parts;  ///< one for each name, none negative
    bool gap_before = false;    ///< begins another group
  };
  std::vector<Bar> bars;
  double width = 640.0;
};
std::string draw(const BarPlot& plot);

struct LegendEntry {
  std::string name, colour;
  bool operator==(const LegendEntry&) const = default;
};
std::string figure(const FigureText& text, const std::string& picture,
                   const std::vector<LegendEntry>& legend);

}  // namespace nf::report
