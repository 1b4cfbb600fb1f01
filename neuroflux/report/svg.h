// Pictures as SVG text: shapes, text that can't break out of it, ticks, labels that keep apart.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nf::report {

/// For markup, in text and in attributes: &, <, >, " and ' are escaped, control characters and
/// bytes that are not UTF-8 become U+FFFD.
std::string escape_markup(std::string_view text);

/// Multiples of 1, 2 or 5 times a power of `base` (10, or 1024 for bytes: then of a power of two)
/// within [low, high], about `wanted` of them and at least one. Throws Error unless both ends are
/// finite and low < high.
std::vector<double> nice_ticks(double low, double high, int wanted, int base = 10);
/// Powers of ten within [low, high], with 2 and 5 times these where there are few. low > 0.
std::vector<double> log_ticks(double low, double high);

/// How wide a text will be, in units of the picture; an estimate that rather is too large.
double text_width(std::string_view text, double size);

struct Box {
  double x = 0.0, y = 0.0, width = 0.0, height = 0.0;
  bool overlaps(const Box& other) const;
  bool within(const Box& outer) const;
};

enum class Anchor { start, middle, end };

struct Label {
  double x = 0.0, y = 0.0;  ///< of the anchor, on the base line
  Anchor anchor = Anchor::start;
  Box box;
};

/// Finds room for labels beside their points.
class LabelPlacer {
 public:
  explicit LabelPlacer(Box area) : area_(area) {}
  /// Nothing may be put there.
  void keep_free(const Box& box) { taken_.push_back(box); }
  /// To the right, left, above or below of the point, the first that is free; none: nothing.
  std::optional<Label> place(double x, double y, std::string_view text, double size);

 private:
  Box area_;
  std::vector<Box> taken_;
};

/// A picture under construction. Colours are classes of the page's style sheet: they follow its
/// light or dark colours.
class Svg {
 public:
  /// `description` is read to those who can't see.
  Svg(double width, double height, std::string_view description);

  void rect(const Box& box, std::string_view style, std::string_view tooltip = {},
            double radius = 0.0);
  void line(double x1, double y1, double x2, double y2, std::string_view style);
  void circle(double x, double y, double radius, std::string_view style,
              std::string_view tooltip = {});
  struct Point {
    double x = 0.0, y = 0.0;
  };
  void polyline(const std::vector<Point>& points, std::string_view style,
                std::string_view tooltip = {});
  void polygon(const std::vector<Point>& points, std::string_view style,
               std::string_view tooltip = {});
  void text(double x, double y, std::string_view text, std::string_view style = {},
            Anchor anchor = Anchor::start, bool upwards = false);

  double width() const { return width_; }
  double height() const { return height_; }
  /// The whole element.
  std::string str() const;

 private:
  void points(const char* element, const std::vector<Point>& points, std::string_view style,
              std::string_view tooltip);
  void close(const char* element, std::string_view tooltip);

  double width_, height_;
  std::string body_;
};

}  // namespace nf::report
