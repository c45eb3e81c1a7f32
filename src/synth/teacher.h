// Who writes: a server that speaks the OpenAI API, or any command line that reads a prompt and writes an answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/cancel.h"
#include "base/result.h"
#include "gate/reply.h"
#include "io/json.h"

namespace nibble::synth {

struct Question {
  Json messages = Json::array();  // in the API's form
  Json tools = Json::array();
  Json params = Json::object();  // temperature and the like
  int64_t seed = 0;              // sent as `seed`
  int64_t max_tokens = 0;        // of the answer
};

struct Answer {
  gate::Reply reply;
  std::string finish;                                // finish_reason
  int64_t prompt_tokens = 0, completion_tokens = 0;  // counted by the server, else estimated (record_check.h)
  double ms = 0;
};

/// How one request ended.
struct Attempt {
  /// ok; cancelled; invalid_argument, not_found and unsupported where no repetition will help; anything else may be
  /// tried again.
  Status status;
  Answer answer;
  bool overloaded = false;    // the server has too much to do (429, 503): not the fault of this request
  double retry_after_s = -1;  // what it asked for, where it did
};

/// One request at a time: an object for each thread.
class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual Attempt ask(const Question& question) = 0;
};
using MakeTeacher = std::function<std::unique_ptr<Teacher>()>;

struct TeacherOptions {
  std::string url, api_key, model;  // of a server
  std::string command;              // or a command line for /bin/sh
  double first_token_s = 300;       // how long an answer may be silent before it begins,
  double idle_s = 30;               // between two bytes,
  double answer_s = 1800;           // and until it is whole; a command has this alone
  CancelToken cancel = {};
};

/// invalid_argument unless exactly one of url and command is given.
Result<MakeTeacher> teacher_of(const TeacherOptions& options);

/// What a command gets on standard input: of a single message of the user without tools that message, else the whole
/// conversation with the tools and how to answer (recipes/generate/prompts/assistant.txt).
Result<std::string> command_prompt(const Question& question);
/// What it says: in a conversation an object {"content", "tool_calls"}, else, and where there is none, plain text.
gate::Reply read_command_answer(const Question& question, const std::string& text);

}  // namespace nibble::synth
