#include "net/http_client.h"

#include <curl/curl.h>

#include <algorithm>

#include "base/check.h"
#include "base/clock.h"

namespace nibble::net {
namespace {

constexpr int kCancelPollMs = 20;
constexpr size_t kMaxHeaderBytes = size_t{256} << 10;

// Before the first handle. There is no matching cleanup: it would not be safe beside other users of the library.
void init_curl() {
  static const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);
  NIBBLE_CHECK(once == CURLE_OK);
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return lower(c); });
  return out;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

struct SlistDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using Slist = std::unique_ptr<curl_slist, SlistDeleter>;

Status append(Slist& list, const std::string& line) {
  if (line.find_first_of("\r\n") != std::string::npos || line.find('\0') != std::string::npos) {
    return invalid_argument("http: expected a header of one line, got a line break in \"{}\"",
                            line.substr(0, line.find(':')));
  }
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  NIBBLE_CHECK(longer != nullptr);
  (void)list.release();
  list.reset(longer);
  return {};
}

// What the callbacks of one exchange share.
struct Exchange {
  CURL* easy = nullptr;
  const HttpClient::OnData* on_data = nullptr;
  size_t max_response_bytes = 0, header_bytes = 0;
  double last_byte_s = now_s();
  bool any_byte = false, stopped = false, too_large = false;
  HttpResponse response;
};

// libcurl's callbacks: anything but the full size makes the transfer fail.
constexpr size_t kAbort = 0;

size_t on_header(char* bytes, size_t size, size_t count, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  const std::string_view line(bytes, size * count);
  exchange.any_byte = true;
  exchange.last_byte_s = now_s();
  exchange.header_bytes += line.size();
  if (exchange.header_bytes > kMaxHeaderBytes) {
    exchange.too_large = true;
    return kAbort;
  }
  exchange.response.headers_s = exchange.last_byte_s;
  if (line.substr(0, 5) == "HTTP/") {
    exchange.response.headers.clear();  // those before belong to an informational response
  } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
    exchange.response.headers.emplace_back(lower(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
  }
  return line.size();
}

int status_of(CURL* easy) {
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

// From the start of the call until the connection stood; 0 where it was kept from an earlier call.
double connect_s(CURL* easy) {
  curl_off_t microseconds = 0;
  curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &microseconds);
  return static_cast<double>(microseconds) * 1e-6;
}

size_t on_body(char* bytes, size_t size, size_t count, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  const std::string_view data(bytes, size * count);
  exchange.last_byte_s = now_s();
  exchange.response.status = status_of(exchange.easy);
  if (exchange.on_data != nullptr && exchange.response.ok()) {
    exchange.stopped = !(*exchange.on_data)(data);
    return exchange.stopped ? kAbort : data.size();
  }
  if (data.size() > exchange.max_response_bytes - exchange.response.body.size()) {
    exchange.too_large = true;
    return kAbort;
  }
  exchange.response.body += data;
  return data.size();
}

// What may be said of a URL in a message: all of it but user information and query, which may be secrets.
std::string printable(std::string_view url) {
  std::string_view shown = url.substr(0, url.find_first_of("?#"));
  const size_t host = shown.find("://");
  if (host == std::string_view::npos) return std::string(shown);
  const size_t end = std::min(shown.find('/', host + 3), shown.size());
  const size_t at = shown.substr(0, end).rfind('@');
  if (at == std::string_view::npos) return std::string(shown);
  return std::string(shown.substr(0, host + 3)) + std::string(shown.substr(at + 1));
}

Status not_http(const std::string& where) {
  return invalid_argument("http: expected an http:// or https:// URL, got \"{}\"", where);
}

Status transfer_error(CURLcode code, const char* reason, const Exchange& exchange, const std::string& where) {
  if (exchange.too_large) {
    return corrupt("http: {}: expected at most {} bytes of reply, got more", where, exchange.max_response_bytes);
  }
  switch (code) {
    case CURLE_URL_MALFORMAT:
      return not_http(where);
    case CURLE_UNSUPPORTED_PROTOCOL:  // a reply without a status line, which libcurl takes for HTTP/0.9
    case CURLE_WEIRD_SERVER_REPLY:
      return corrupt("http: {}: expected an HTTP reply, got {}", where, reason);
    default:
      break;
  }
  if (exchange.any_byte) return io("http: {}: expected a whole reply, got a part of one ({})", where, reason);
  return unavailable("http: {}: expected a reply, got none ({})", where, reason);
}

Result<Slist> request_headers(const HttpOptions& options, bool has_body) {
  const auto names = [&](std::string_view name) {
    return std::any_of(options.headers.begin(), options.headers.end(),
                       [&](const auto& header) { return lower(header.first) == name; });
  };
  Slist list;
  NIBBLE_RETURN_IF_ERROR(append(list, "Expect:"));  // no round trip for "100 Continue"
  if (has_body && !names("content-type")) NIBBLE_RETURN_IF_ERROR(append(list, "Content-Type: application/json"));
  if (!options.bearer.empty() && !names("authorization")) {
    NIBBLE_RETURN_IF_ERROR(append(list, "Authorization: Bearer " + options.bearer));
  }
  for (const auto& [name, value] : options.headers)
    NIBBLE_RETURN_IF_ERROR(append(list, fmt::format("{}: {}", name, value)));
  return list;
}

}  // namespace

const std::string* HttpResponse::header(std::string_view name) const {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const auto& h) { return h.first == name; });
  return found == headers.end() ? nullptr : &found->second;
}

struct HttpClient::Handles {
  // The multi handle owns the pool of connections; the easy handle holds one request's settings.
  CURLM* multi = nullptr;
  CURL* easy = nullptr;

  Handles() {
    init_curl();
    multi = curl_multi_init();
    easy = curl_easy_init();
    NIBBLE_CHECK(multi != nullptr && easy != nullptr);
  }
  ~Handles() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
  }
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;

  void configure(const std::string& url, const std::string_view* body, const HttpOptions& options);
  CURLcode run(const HttpOptions& options, const Exchange& exchange);
};

void HttpClient::Handles::configure(const std::string& url, const std::string_view* body, const HttpOptions& options) {
  curl_easy_reset(easy);
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // without this, libcurl reads http_proxy
  curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "nibble");
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout_s * 1e3));
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout_s * 1e3));
  if (body != nullptr) {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body->size()));
    // A null pointer would make libcurl read the body from stdin.
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body->empty() ? "" : body->data());
  }
}

// Drives the transfer to its end, looking at the token and the idle time between waits.
CURLcode HttpClient::Handles::run(const HttpOptions& options, const Exchange& exchange) {
  curl_multi_add_handle(multi, easy);
  CURLcode result = CURLE_OK;
  while (true) {
    if (options.cancel.cancelled()) {
      result = CURLE_ABORTED_BY_CALLBACK;
      break;
    }
    const double patience_s =
        !exchange.any_byte && options.first_byte_timeout_s > 0 ? options.first_byte_timeout_s : options.idle_timeout_s;
    if (patience_s > 0 && now_s() - exchange.last_byte_s > patience_s) {
      result = CURLE_OPERATION_TIMEDOUT;
      break;
    }
    int running = 0, queued = 0;
    if (curl_multi_perform(multi, &running) != CURLM_OK) {
      result = CURLE_FAILED_INIT;
      break;
    }
    if (running == 0) {
      const CURLMsg* message = curl_multi_info_read(multi, &queued);
      result = message == nullptr ? CURLE_FAILED_INIT : message->data.result;
      break;
    }
    curl_multi_poll(multi, nullptr, 0, kCancelPollMs, nullptr);
  }
  curl_multi_remove_handle(multi, easy);  // closes the connection of a transfer that is not complete
  return result;
}

HttpClient::HttpClient() : handles_(std::make_unique<Handles>()) {}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;

Result<HttpResponse> HttpClient::send(const std::string& url, const std::string_view* body, const HttpOptions& options,
                                      const OnData* on_data) {
  const std::string scheme = lower(std::string_view(url).substr(0, url.find("://")));
  if (scheme != "http" && scheme != "https") return not_http(printable(url));
  NIBBLE_TRY(headers, request_headers(options, body != nullptr));
  Exchange exchange;
  exchange.easy = handles_->easy;
  exchange.on_data = on_data;
  exchange.max_response_bytes = options.max_response_bytes;
  char detail[CURL_ERROR_SIZE] = "";
  handles_->configure(url, body, options);
  curl_easy_setopt(exchange.easy, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(exchange.easy, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(exchange.easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(exchange.easy, CURLOPT_HEADERDATA, &exchange);
  curl_easy_setopt(exchange.easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(exchange.easy, CURLOPT_WRITEDATA, &exchange);

  const double begin_s = now_s();
  const CURLcode code = handles_->run(options, exchange);
  exchange.response.status = status_of(exchange.easy);
  exchange.response.sent_s = begin_s + connect_s(exchange.easy);
  curl_easy_reset(exchange.easy);  // it must not keep pointers into this call
  if (code == CURLE_ABORTED_BY_CALLBACK) return cancelled("http: {}: cancelled", printable(url));
  if (code != CURLE_OK && !exchange.stopped) {
    return transfer_error(code, detail[0] != '\0' ? detail : curl_easy_strerror(code), exchange, printable(url));
  }
  return std::move(exchange.response);
}

Result<HttpResponse> HttpClient::get(const std::string& url, const HttpOptions& options) {
  return send(url, nullptr, options, nullptr);
}

Result<HttpResponse> HttpClient::post(const std::string& url, std::string_view body, const HttpOptions& options) {
  return send(url, &body, options, nullptr);
}

Result<HttpResponse> HttpClient::post_stream(const std::string& url, std::string_view body, const HttpOptions& options,
                                             const OnData& on_data) {
  return send(url, &body, options, &on_data);
}

}  // namespace nibble::net
