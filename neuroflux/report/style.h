// The style sheet of a report.
#pragma once

namespace nf::report {

// Colours: c0…c5 methods, t0…t3 parts of time, m0…m7 categories of memory.
inline constexpr const char* kStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1b1f24; --dim: #59636e; --rule: #d5dae0; --soft: #f4f6f8; --odd: #e9edf1;
  --c0: #c2410c; --c1: #be185d; --c2: #a16207; --c3: #7c3aed; --c4: #0f766e; --c5: #1d4ed8;
  --t0: #2563a8; --t1: #d97706; --t2: #4d8c3f; --t3: #8b929b;
  --m0: #2563a8; --m1: #7fb2e5; --m2: #c2410c; --m3: #8a5cc7;
  --m4: #4d8c3f; --m5: #e0a02c; --m6: #8b929b; --m7: #2aa79b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --ink: #e6e9ed; --dim: #9ba5b0; --rule: #363d46; --soft: #1d232a; --odd: #262d36;
    --c0: #fb923c; --c1: #f472b6; --c2: #e6c84f; --c3: #b794f6; --c4: #2dd4bf; --c5: #7ab0ff;
    --t0: #5fa3e8; --t1: #fbbf24; --t2: #86c46f; --t3: #a3abb5;
    --m0: #5fa3e8; --m1: #b5d6f7; --m2: #f0804a; --m3: #b594e6;
    --m4: #86c46f; --m5: #f4c75d; --m6: #a3abb5; --m7: #4fd0c3;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 60px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 21px; margin: 40px 0 8px; overflow-wrap: anywhere; }
h3 { font-size: 18px; margin: 36px 0 8px; border-top: 1px solid var(--rule); padding-top: 16px; }
h4 { font-size: 15px; margin: 14px 0 4px; }
p { margin: 6px 0; max-width: 76ch; overflow-wrap: anywhere; } p, figcaption { color: var(--dim); }
figure { margin: 12px 0 20px; } figcaption { font-size: 13px; margin-top: 4px; max-width: 90ch; }
.picture { overflow-x: auto; } svg { display: block; max-width: 100%; height: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 508px), 1fr)); gap: 0 16px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 4px 0; padding: 0;
  font-size: 13px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 5px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums; }
th { white-space: normal; vertical-align: bottom; background: var(--soft); }
th:nth-child(2), td:nth-child(2) { text-align: left; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 10px 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--dim); }
pre { background: var(--soft); padding: 12px; overflow-x: auto; font-size: 12.5px; }
svg text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
svg text.small { font-size: 11.5px; fill: var(--dim); } svg text.strong { font-weight: 600; }
svg text.name { fill: var(--dim); } svg text.reference-text { font-weight: 600; }
.grid { stroke: var(--rule); stroke-width: 1; } .axis { stroke: var(--dim); stroke-width: 1; }
.reference { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 6 4; }
.band { fill: var(--soft); } .band.odd { fill: var(--odd); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .line.ink { stroke-width: 1.2; }
.dash1 { stroke-dasharray: 8 4; } .dash2 { stroke-dasharray: 2 4; } .dash3 { stroke-dasharray: 9 3 2 3; }
.faint { opacity: .55; } .ring { fill: none; stroke-width: 2; }
.unit { fill: var(--page); stroke: var(--rule); } .unit.chosen { stroke: var(--c4); stroke-width: 2.5; }
.block { fill: var(--soft); stroke: var(--dim); } .untrained { stroke-dasharray: 5 4; opacity: .75; }
.track { fill: var(--odd); stroke: var(--rule); }
)css";

}  // namespace nf::report
