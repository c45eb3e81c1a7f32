// From a recipe and a teacher to a set of training conversations.
//
// The work goes in rounds. A round asks, for every category, for as many conversations as its quota lacks and its
// rejections make likely (demand.h), in cells that are worked on side by side. When all cells of a round are there,
// their conversations are taken in the order (category, cell, conversation): what is accepted depends on the recipe,
// the seed and the teacher's answers, never on who answered first. Answers are journaled as they come (answers.h), and
// a run that is taken up computes its rounds again from the journal until it comes to a question that has no answer.
#pragma once

#include <functional>

#include "base/file.h"
#include "base/progress.h"
#include "synth/answers.h"
#include "synth/asker.h"
#include "synth/collection.h"
#include "synth/set_check.h"

namespace nibble::synth {

struct GenerateOptions {
  uint64_t seed = 1;
  AskOptions ask;
  int dry_rounds = 3;  // rounds without one usable conversation after which a category is given up
};

struct CategoryReport {
  const Category* category;
  CategoryCount count;
  int64_t asked = 0;  // conversations
  int64_t rounds = 0;
};

struct GenerateReport {
  std::vector<CategoryReport> categories;  // in the order of the recipe
  SetReport set;
  Spent spent;          // the answers of earlier runs of this journal included
  int64_t answers = 0;  // of the teacher, in the journal
  Stop stop = Stop::none;
  Status stop_status;

  bool complete() const { return stop == Stop::none && set.shortfalls.empty(); }
};

/// Everything that must outlive a run.
struct GenerateInput {
  const Recipe& recipe;
  const Validator& validator;
  const HoldOut& hold_out;
  MakeTeacher make_teacher;
  Answers& answers;
};

/// Works until the quotas are met, every category that lacks something is given up, or asking is over (Ctrl-C, budget,
/// a teacher that refuses or is gone): the report says which. Progress counts conversations and is called from one
/// thread at a time. Errors are those of the journal and of detectors without a verdict.
Result<GenerateReport> generate(const GenerateInput& input, const GenerateOptions& options, Collection& collection,
                                const std::function<void(const GenerateReport& so_far, int64_t usable)>& progress = {});

/// `count` conversations, spread over the categories in turn, from one cell each, with their faults.
Result<std::vector<Accepted>> preview(const GenerateInput& input, const GenerateOptions& options, int64_t count);

}  // namespace nibble::synth
