// GET /v1/models, /v1/models/{id}, /health.
#include "serve/handlers.h"

namespace nibble::serve {
namespace {

constexpr std::string_view kModelsPrefix = "/v1/models/";

Json model_json(const Service& service, const std::string& id) {
  const engine::Info& info = service.engine->info();
  return {{"id", id},
          {"object", "model"},
          {"created", service.created},
          {"owned_by", "nibble"},
          {"max_model_len", info.context},
          {"nibble",
           {{"format", info.format},
            {"quant", info.quant},
            {"activations", info.activations},
            {"parser", text::name(service.options.dialect)},
            {"thinking_default", name(thinking_of(service.options))}}}};
}

}  // namespace

std::optional<ApiError> list_models(const std::shared_ptr<Service>& service,
                                    const std::shared_ptr<Exchange>& exchange) {
  Json models = Json::array({model_json(*service, service->options.model_id)});
  for (const std::string& alias : service->options.aliases) models.push_back(model_json(*service, alias));
  exchange->respond(json_response({{"object", "list"}, {"data", std::move(models)}}));
  return std::nullopt;
}

std::optional<ApiError> get_model(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange) {
  const std::string id = exchange->request().path.substr(kModelsPrefix.size());
  if (id.empty() || !service->serves(id)) return model_not_found(id);
  exchange->respond(json_response(model_json(*service, id)));
  return std::nullopt;
}

std::optional<ApiError> health(const std::shared_ptr<Service>& service, const std::shared_ptr<Exchange>& exchange) {
  if (const Status status = service->engine->health(); !status.ok()) return device_lost(status.message());
  exchange->respond(json_response({{"status", "ok"}}));
  return std::nullopt;
}

}  // namespace nibble::serve
