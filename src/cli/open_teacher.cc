#include "cli/open_teacher.h"

#include <fmt/chrono.h>

#include "base/sha256.h"
#include "cli/terminal.h"
#include "train/model_hash.h"
#include "train/sidecar.h"

namespace nibble::cli {
namespace {

Result<train::SidecarHeader> describe(Context& cx, const TeacherRequest& request, checkpoint::LoadedModel& model) {
  train::SidecarHeader header;
  header.hidden = model.weights.lm_head.in;
  header.dtype = train::head_operand(cx.numeric);
  ProgressBar bar("check " + folder_name(request.dir), true);
  NIBBLE_TRY(hash, train::hash_model(cx, model.weights, model.fingerprint, bar.callback()));
  header.teacher = hash.all;
  header.head = hash.head;
  NIBBLE_TRY(tokenizer, read_file(request.tokenizer / "tokenizer.json"));
  header.tokenizer = Sha256().add(tokenizer).hex();
  header.prompts = Sha256().add(request.data.report.prompt_lock).add(request.valid.report.prompt_lock).hex();
  NIBBLE_TRY(kinds, train::parse_loss_kinds(request.flags.loss_kinds));
  header.loss_kinds = request.flags.loss_rows == "all" ? "all" : to_text(kinds);
  header.think_prefix = request.flags.think_prefix;
  header.created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  return header;
}

Result<std::unique_ptr<train::Teacher>> open_sidecar(Context& cx, const TeacherRequest& request,
                                                     checkpoint::LoadedModel& model) {
  std::vector<const train::Sample*> samples;
  for (const train::Dataset* data : {&request.data, &request.valid}) {
    for (const train::Sample& sample : data->samples) samples.push_back(&sample);
  }
  NIBBLE_TRY(header, describe(cx, request, model));
  std::error_code ignored;
  if (!std::filesystem::exists(request.sidecar, ignored)) {
    ProgressBar bar("write " + request.sidecar.filename().string());
    Context own(cx.pool, cx.numeric);  // gives its scratch back before the training begins
    own.cancel = cx.cancel;
    train::ResidentTeacher reader(model.weights);
    NIBBLE_RETURN_IF_ERROR(
        train::write_sidecar(own, reader, samples, request.objective, header, request.sidecar, bar.callback()));
    for (const MappedFile& file : model.weights.mappings) file.drop(0, file.bytes().size());
  }
  NIBBLE_TRY(teacher, train::SidecarTeacher::open(request.sidecar, header, model.weights.lm_head));
  NIBBLE_RETURN_IF_ERROR(teacher.holds(samples, request.objective));
  return std::unique_ptr<train::Teacher>(std::make_unique<train::SidecarTeacher>(std::move(teacher)));
}

}  // namespace

Result<OpenTeacher> open_teacher(Context& cx, const TeacherRequest& request) {
  NIBBLE_TRY(model, checkpoint::load_checkpoint(request.dir, {}));
  if (model.weights.config.vocab != request.vocab) {
    return invalid_argument("teacher: expected the vocabulary of the student ({}), got {}", request.vocab,
                            model.weights.config.vocab);
  }
  OpenTeacher open;
  open.model = std::make_unique<checkpoint::LoadedModel>(std::move(model));
  if (request.sidecar.empty()) {
    open.teacher = std::make_unique<train::ResidentTeacher>(open.model->weights);
  } else {
    NIBBLE_TRY(teacher, open_sidecar(cx, request, *open.model));
    open.teacher = std::move(teacher);
  }
  return open;
}

}  // namespace nibble::cli
