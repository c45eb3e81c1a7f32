# Rows of quantize runs, with what eval measured of each.
($eval[0].models) as $models |
($models[0].mean_kl) as $max |
def digits(n): . * pow(10; n) | round / pow(10; n);
{reference: $eval[0].a, data: $eval[0].data, conversations: $eval[0].conversations, tokens: $models[0].tokens,
 rows: [. as $runs | range(length) | . as $i |
  $runs[$i] + ($models[$i] | {mean_kl, standard_error, median_kl, p99_kl, top1, difference}) |
  .text = ([.name, (.bits | digits(2)), (.bits_with_head | digits(2)),
            "\(.mean_kl | digits(5)) ± \(.standard_error | digits(5))", "\(.mean_kl / $max | digits(2))",
            (.median_kl | digits(6)), (.p99_kl | digits(3)), "\(.top1 * 100 | digits(2)) %", "\(.cpu_s | round) s"]
           | map(tostring) | join(" | "))]}
