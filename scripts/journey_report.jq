# A page about a journey: `jq -r -f journey_report.jq --arg form text|html journey.json`.
# text is Markdown; html is one page without anything outside it.

def models: [
  ["base",                   "tiny-base as it comes"],
  ["tuned",                  "fine-tuned (sft)"],
  ["tuned-seed1",            "the same, another seed"],
  ["tuned-seed2",            "the same, a third seed"],
  ["tuned-1000",             "fine-tuned on 1,000 × 2"],
  ["qat",                    "fine-tuned in W4A16 (qat)"],
  ["tuned-max-w4a16",        "fine-tuned, max W4A16"],
  ["tuned-mse-w4a16",        "fine-tuned, mse W4A16"],
  ["tuned-max-w4a4",         "fine-tuned, max W4A4"],
  ["tuned-mse-w4a4",         "fine-tuned, mse W4A4"],
  ["tuned-healed-w4a16",     "fine-tuned, healed W4A16"],
  ["tuned-healed-w4a4",      "fine-tuned, healed W4A4"],
  ["voice",                  "tiny-voice"],
  ["voice-max-w4a16",        "tiny-voice, max W4A16"],
  ["voice-mse-w4a16",        "tiny-voice, mse W4A16"],
  ["voice-max-w4a4",         "tiny-voice, max W4A4"],
  ["voice-mse-w4a4",         "tiny-voice, mse W4A4"],
  ["voice-other-text-w4a4",  "tiny-voice, max W4A4, other calibration text"],
  ["voice-healed-w4a16",     "tiny-voice, healed W4A16"],
  ["voice-healed-w4a4",      "tiny-voice, healed W4A4"],
  ["lora",                   "LoRA, merged"],
  ["lora-max-w4a16",         "LoRA, merged, max W4A16"],
  ["full-sequence",          "loss on every token"],
  ["full-sequence-max-w4a16","loss on every token, max W4A16"],
  ["one-epoch",              "one epoch"],
  ["one-epoch-max-w4a16",    "one epoch, max W4A16"]
];

def fixed($digits):
  pow(10; $digits) as $p | ((. * $p | round) / $p | tostring) |
  if $digits == 0 then . else
    (if test("\\.") then . else . + "." end) | (split(".")[1] | length) as $have | . + ("0" * ($digits - $have) // "")
  end;
def percent: if . == null then "" else (. * 100 | fixed(1)) + " %" end;
def small: if . == null then "" elif . == 0 then "0" else fixed(5) end;

# A row of what is known about each model that was judged.
def rows: .results as $r | [models[] | . as [$name, $title] | $r["gate-" + $name] | select(. != null) | {
  title: $title,
  overall: .overall,
  categories: (.categories | map({(.category): .rate}) | add),
  kl: $r["eval-" + $name].mean_kl,
  top1: $r["eval-" + $name].top1,
  flips: $r["train-" + $name].flips
}];
def categories: [.[].categories | keys[]] | unique;

def cells: [
  .title,
  (.overall | "\(.rate | percent) (\(.ci[0] * 100 | fixed(0))–\(.ci[1] * 100 | fixed(0)))"),
  (.overall | .with_manners / .n | percent),
  (.overall | [.thinks, .markdown, .asks] | map(tostring) | join(" / ")),
  (.kl | small), (.top1 | percent), (.flips | percent)
];
def header: ["model", "passed (95 %)", "with manners", "thinks / markdown / asks", "KL to its BF16", "same top token", "codes flipped"];

def markdown_row: "| " + join(" | ") + " |";
def markdown_table($header): ($header | markdown_row), ($header | map("---") | markdown_row), (.[] | markdown_row);
def text: rows as $rows | ($rows | categories) as $categories |
  "\($rows[0].overall.n) cases a model, greedy, over HTTP.", "",
  ($rows | map(cells) | markdown_table(header)), "",
  ($rows | map([.title] + [.categories[$categories[]] | . * 100 | fixed(0)]) | markdown_table(["passed, %"] + $categories));

def tag($name): "<\($name)>\(.)</\($name)>";
def html_row($cell): map(tag($cell)) | add | tag("tr");
def html_table($header): (($header | html_row("th")) + (map(html_row("td")) | add)) | tag("table");
# A pass rate as a cell between red and green.
def heat: "<td style=\"background:hsl(\(. * 120 | round) 60% 45% / .45)\">\(. * 100 | fixed(0))</td>";
# Bars, one a row: [[label, value, text]…].
def bars($heading):
  map(select(.[1] != null)) | (map(.[1]) | max // 0) as $max | if length == 0 then "" else
    "<h2>\($heading)</h2><svg width=\"760\" height=\"\(length * 22 + 4)\" font-size=\"13\" fill=\"currentColor\">" +
    ([to_entries[] | .key as $i | .value as [$title, $value, $shown] |
      "<text x=\"0\" y=\"\($i * 22 + 16)\">\($title)</text>" +
      "<rect x=\"320\" y=\"\($i * 22 + 4)\" height=\"15\" width=\"\(if $max > 0 then $value / $max * 340 else 0 end)\" fill=\"#4477aa\"/>" +
      "<text x=\"\(326 + (if $max > 0 then $value / $max * 340 else 0 end))\" y=\"\($i * 22 + 16)\">\($shown)</text>"] | add) +
    "</svg>"
  end;
def html: rows as $rows | ($rows | categories) as $categories |
  "<!doctype html><meta charset=\"utf-8\"><title>nibble: the journey</title><style>
:root{color-scheme:light dark} body{font:15px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse} td,th{padding:.2em .6em;text-align:left;border-bottom:1px solid #8884}
</style><h1>The journey</h1>",
  "<p>\($rows[0].overall.n) cases a model, greedy, over HTTP. \(.command), commit \(.commit), on \(.machine).</p>",
  ($rows | map(cells) | html_table(header)),
  ($rows | map([.title, .overall.rate, (.overall.rate | percent)]) | bars("Cases passed")),
  "<h2>Cases passed by category, %</h2>",
  ((["model"] + $categories | html_row("th")) +
   ($rows | map((.title | tag("td")) + ([.categories[$categories[]] | heat] | add) | tag("tr")) | add) | tag("table")),
  ($rows | map([.title, .kl, (.kl | small)]) | bars("KL to its BF16 model")),
  ($rows | map([.title, .flips, (.flips | percent)]) | bars("Codes that healing changed"));

if $form == "html" then html else text end
