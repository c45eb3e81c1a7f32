// Which names a template reads from outside. The walk follows the order of execution: a name is bound from its set on,
// after an if only when every branch binds it, and inside a loop, macro or with only there.
#include <algorithm>
#include <map>
#include <set>

#include "text/jinja/template.h"

namespace nibble::text::jinja {
namespace {

// Names bound so far; those of the enclosing blocks are found through `parent`.
struct Bound {
  const Bound* parent = nullptr;
  std::set<std::string, std::less<>> names = {};

  bool contains(const std::string& name) const {
    for (const Bound* b = this; b != nullptr; b = b->parent) {
      if (b->names.contains(name)) return true;
    }
    return false;
  }
};

class Walk {
 public:
  std::vector<Template::FreeName> take() { return std::move(free_); }

  void block(const Block& statements, Bound& bound) {
    for (const auto& s : statements) statement(*s, bound);
  }

 private:
  void read(const std::string& name, bool scalar, const Bound& bound) {
    if (name == kBlockText || bound.contains(name)) return;
    const auto [place, fresh] = places_.try_emplace(name, free_.size());
    if (fresh) free_.push_back({name, true});
    free_[place->second].scalar &= scalar;
  }

  void expression(const Expr* e, const Bound& bound, bool scalar = true) {
    if (e == nullptr) return;
    if (e->kind == Expr::Kind::name) return read(e->name, scalar, bound);
    const bool takes_apart = e->kind == Expr::Kind::attribute || e->kind == Expr::Kind::item ||
                             e->kind == Expr::Kind::slice || e->kind == Expr::Kind::call;
    for (size_t i = 0; i < e->parts.size(); ++i) expression(e->parts[i].get(), bound, !(takes_apart && i == 0));
    for (const Argument& argument : e->arguments) expression(argument.value.get(), bound);
  }

  void bind(const Target& target, Bound& bound) {
    if (!target.attribute.empty()) return read(target.names[0], /*scalar=*/false, bound);
    bound.names.insert(target.names.begin(), target.names.end());
  }

  // A block whose names end with it.
  void inner(const Block& statements, const Bound& bound) {
    Bound own{&bound};
    block(statements, own);
  }

  void branch(const Stmt& s, Bound& bound) {
    std::vector<Bound> ends;
    bool has_else = false;
    for (const Stmt::Branch& b : s.branches) {
      expression(b.condition.get(), bound);
      has_else |= b.condition == nullptr;
      ends.push_back({&bound});
      block(b.body, ends.back());
    }
    if (!has_else) return;
    for (const std::string& name : ends[0].names) {
      const auto binds = [&](const Bound& b) { return b.names.contains(name); };
      if (std::all_of(ends.begin(), ends.end(), binds)) bound.names.insert(name);
    }
  }

  void loop(const Stmt& s, const Bound& bound) {
    expression(s.expr.get(), bound, /*scalar=*/false);
    Bound body{&bound, {"loop"}};
    bind(s.target, body);
    expression(s.condition.get(), body);
    block(s.body, body);
    inner(s.otherwise, bound);
  }

  // The body of a macro runs when it is called, and may then see more than what is bound at its definition: a name
  // that is only bound later counts as free, which errs on the harmless side.
  void macro(const Stmt& s, const Bound& bound) {
    Bound body{&bound, {"caller"}};
    for (const Parameter& p : s.parameters) {
      expression(p.otherwise.get(), body);
      body.names.insert(p.name);
    }
    block(s.body, body);
  }

  void with(const Stmt& s, const Bound& bound) {
    Bound body{&bound};
    for (const Parameter& p : s.parameters) {
      expression(p.otherwise.get(), bound);
      body.names.insert(p.name);
    }
    block(s.body, body);
  }

  void statement(const Stmt& s, Bound& bound) {
    switch (s.kind) {
      case Stmt::Kind::branch:
        return branch(s, bound);
      case Stmt::Kind::loop:
        return loop(s, bound);
      case Stmt::Kind::assign:
        expression(s.expr.get(), bound);
        return bind(s.target, bound);
      case Stmt::Kind::assign_block:
        inner(s.body, bound);
        expression(s.expr.get(), bound);
        return bind(s.target, bound);
      case Stmt::Kind::macro:
        bound.names.insert(s.name);
        return macro(s, bound);
      case Stmt::Kind::call_block:
        expression(s.expr.get(), bound);
        return macro(s, bound);
      case Stmt::Kind::with:
        return with(s, bound);
      default:
        expression(s.expr.get(), bound);
        return inner(s.body, bound);
    }
  }

  std::vector<Template::FreeName> free_;
  std::map<std::string, size_t> places_;  // in free_
};

}  // namespace

std::vector<Template::FreeName> find_free_names(const Block& block) {
  Walk walk;
  Bound bound;
  walk.block(block, bound);
  return walk.take();
}

}  // namespace nibble::text::jinja
