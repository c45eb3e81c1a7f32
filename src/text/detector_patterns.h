// The patterns of the manners detectors (detect.h), PCRE2 syntax. The prefix of a name is its family.
#pragma once

#include <array>
#include <string_view>

namespace nibble::text {

struct DetectorPattern {
  std::string_view name;
  std::string_view pattern;
};

// clang-format off
inline constexpr std::array<DetectorPattern, 24> kDetectorPatterns = {{
    {"think.tag",
     R"re((?i)</?think(?:ing)?>|</?(?:thought|reasoning|analysis|reflection|scratchpad)>)re"},
    {"think.open",
     R"re((?i)\A\s*(?:(?:okay|ok|alright|hmm+|wait|so|well)[,.]?\s+(?:so,?\s+)?)?(?:let me (?:think)re"
     R"re(|analy[sz]e|consider|break (?:this|it) down|work through)|let's (?:think|analy[sz]e)re"
     R"re(|break (?:this|it) down)|the user (?:is|was|wants|asks|asked|said|says|has|just|seems|greets)re"
     R"re(|needs)|the (?:question|query|request) (?:is|asks)|i (?:need|should|have|want) to (?:think)re"
     R"re(|consider|figure|determine|respond|reply|answer|analy[sz]e|provide|recall))re"
     R"re(|i should (?:\w+ )?(?:respond|reply|answer|ask|search|call|use)|first, i (?:need|should)re"
     R"re(|will)|thinking(?: process)?:|thought(?:s| process)?:|reasoning:|analysis:|step 1[:.]))re"},
    {"think.any",
     R"re((?i)\bthe user (?:is asking|wants me to|asked me to|has asked|seems to (?:want|be))\b)re"
     R"re(|\b(?:my|the) (?:system prompt|instructions) (?:says?|tells?|requires?)\b)re"
     R"re(|\bi should (?:respond|reply|answer) (?:with|in|as|by)\b|\bthe (?:appropriate|correct|best)re"
     R"re(|right) (?:response|tool)(?: call)? (?:is|would be)\b|\b(?:hmm|wait), (?:actually|let me)re"
     R"re(|i (?:need|should))\b)re"},
    {"md.bold",
     R"re(\*\*[^*\n]+\*\*|(?<![\w_])__[^_\n]+__(?![\w_]))re"},
    {"md.italic",
     R"re((?<![\w*])\*(?=[^\s*])[^*\n]*[^\s*]\*(?![\w*])|(?<![\w*])\*[^\s*]\*(?![\w*]))re"
     R"re(|(?<![\w_])_(?=[^\s_])[^_\n]*[^\s_]_(?![\w_]))re"},
    {"md.heading",
     R"re((?m)^\s{0,3}#{1,6}\s+\S)re"},
    {"md.bullet",
     R"re((?m)^\s*[-*+•]\s+\S)re"},
    {"md.number",
     R"re((?m)(?:^|\s)1[.)]\s+\S[^\n]*?(?:\n\s*|\s)2[.)]\s+\S)re"},
    {"md.fence",
     R"re(```|~~~)re"},
    {"md.code",
     R"re(`[^`\n]+`)re"},
    {"md.link",
     R"re(!?\[[^\]\n]+\]\([^)\s]+\))re"},
    {"md.table",
     R"re((?m)^\s*\|.*\|\s*$)re"},
    {"md.quote",
     R"re((?m)^\s{0,3}>\s+\S)re"},
    {"md.rule",
     R"re((?m)^\s{0,3}(?:-{3,}|\*{3,}|_{3,})\s*$)re"},
    {"md.html",
     R"re((?i)</?(?:b|i|u|em|strong|br|p|ul|ol|li|h[1-6]|code|pre|table|tr|td|th|span|div)\b[^>\n]*>)re"},
    {"md.latex",
     R"re(\\[(\[]|\$\$|\\(?:frac|boxed|text|times|cdot)\b)re"},
    {"tag",
     R"re((?i)</?tool_call>|</?tool_response>|</?tools>|<function=|</function>|<parameter=)re"
     R"re(|</parameter>|<\|[a-z_0-9]+\|>|\{\s*"name"\s*:\s*"[^"]+"\s*,\s*"(?:arguments)re"
     R"re(|parameters)"\s*:)re"},
    {"role",
     R"re((?mi)^\s*(?:user|human|assistant|system|tool|ai)\s*:\s)re"},
    {"confirm",
     R"re((?i)(?:\A|[.?!,;:]\s+)(?:so |and |or |ok(?:ay)?,? )?(?:shall|should|may|can)re"
     R"re(|could) i (?:go ahead|proceed|search|look|check|find|save|note|set|start|add|create|make)re"
     R"re(|call|run|use|do)\b|\b(?:would|do) you (?:like|want) me to\b|\bwant me to\b)re"
     R"re(|\blet me know if (?:you(?:'d| would) like|you want|i should)\b|\bdo you want to (?:proceed)re"
     R"re(|continue|go ahead)\b|\b(?:is|are) (?:that|it|this|you) (?:ok|okay|alright)re"
     R"re(|fine)(?: with (?:that|you))?\s*\?|\bplease confirm\b|\b(?:just )?(?:confirm)re"
     R"re(|say yes)\b[^.?!]*\b(?:and i(?:'ll| will)|before i)\b|\bi can (?:search|look|check|save|note)re"
     R"re(|set|add)\b[^.?!]*\bif you(?:'d| would)? (?:like|want)\b)re"},
    {"refuse",
     R"re((?i)\b(?:do(?:es)? not|don't|did not|didn't|can(?:no| no)t|can't|could not|couldn't)re"
     R"re(|am not able to|'m not able to|unable to)\s+(?:\w+\s+){0,2}?(?:remember|recall|find|have)re"
     R"re(|see|know|locate)\b|\bno (?:memory|memories|record|records|notes?|information|mention)re"
     R"re(|results?)\b|\bnothing (?:about|on|in|from|saved|stored|came up|comes up)\b|\bnot (?:in)re"
     R"re(|found in) my (?:memory|notes|records)\b|\b(?:haven't|have not)re"
     R"re(|never) (?:\w+\s+){0,2}?(?:told|mentioned|saved|noted|discussed|talked|shared)\b)re"},
    {"phantom",
     R"re((?i)\bi(?:'ve| have)? (?:just |already )?(?:saved|noted|added|set|started|created|scheduled)re"
     R"re(|searched|looked up|checked|called|sent|booked)\b|\b(?:timer|alarm|reminder) (?:is )?set\b)re"},
    {"emoji",
     R"re(\p{Extended_Pictographic})re"},
    {"url",
     R"re((?i)\bhttps?://|\bwww\.)re"},
    {"vocative",
     R"re((?:\A|[.!?]\s+)(?i:hi|hello|hey|namaskara|namaste|good (?:morning|afternoon|evening|night))re"
     R"re(|welcome(?: back)?|thanks|thank you|sure|okay|sorry),?\s+(\p{Lu}[\p{L}\p{M}]+)(?=[,.!?])re"
     R"re(|\s*\Z)|\b(?i:your name is|you are|you're)\s+(\p{Lu}[\p{L}\p{M}]+)(?=[,.!?]|\s*\Z))re"
     R"re(|,\s+(\p{Lu}[\p{L}\p{M}]+)[.!?]?\s*\Z)re"},
}};
// clang-format on

}  // namespace nibble::text
