"""openai_client_test.py URL: what an application does with the official client, against a running server."""
import asyncio
import json
import sys
import unittest

import openai

URL = sys.argv.pop() + "/v1"
SYSTEM = ("You are Annie, a voice companion. Answer in one or two short plain sentences. "
          "The user is Uma, lives in Chennai, works at a law office and likes mysore pak.")


def tool(name, description, argument, kind="string"):
    parameters = {"type": "object", "properties": {argument: {"type": kind}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [tool("search_memory", "Search past conversations.", "query"), tool("web_search", "Search the web.", "query"),
         tool("save_note", "Save a note.", "text"), tool("set_timer", "Start a timer.", "minutes", "integer")]


def chat(text, **more):
    return {"model": MODEL, "temperature": 0, "max_tokens": 60, "tools": TOOLS,
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
            "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}, **more}


class OpenAIClient(unittest.TestCase):
    def test_models(self):
        self.assertEqual([m.id for m in client.models.list().data], [MODEL])
        self.assertEqual(client.models.retrieve(MODEL).id, MODEL)

    def test_reply(self):
        reply = client.chat.completions.create(**chat("Hey Annie, are you there?"))
        self.assertEqual(reply.choices[0].finish_reason, "stop")
        self.assertIn("Uma", reply.choices[0].message.content)
        self.assertIsNone(reply.choices[0].message.tool_calls)
        self.assertEqual(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens)

    def test_stream_is_the_reply_in_pieces(self):
        request = chat("Hey Annie, are you there?")
        whole = client.chat.completions.create(**request)
        chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
        deltas = [c.choices[0] for c in chunks if c.choices]
        self.assertEqual("".join(d.delta.content or "" for d in deltas), whole.choices[0].message.content)
        self.assertEqual([d.finish_reason for d in deltas if d.finish_reason], ["stop"])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertGreater(len(deltas), 3)

    def test_tool_call_and_its_result(self):
        request = chat("Start a eleven minute timer.")
        reply = client.chat.completions.create(**request).choices[0]
        self.assertEqual(reply.finish_reason, "tool_calls")
        call = reply.message.tool_calls[0]
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("set_timer", {"minutes": 11}))
        request["messages"] += [reply.message, {"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'}]
        answer = client.chat.completions.create(**request).choices[0]
        self.assertEqual(answer.finish_reason, "stop")
        self.assertIn("eleven", answer.message.content)

    def test_streamed_tool_call(self):
        with client.chat.completions.stream(**chat("Start a eleven minute timer.")) as stream:
            call = stream.get_final_completion().choices[0].message.tool_calls[0]
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("set_timer", {"minutes": 11}))

    def test_stop_string(self):
        reply = client.chat.completions.create(**chat("Hey Annie, are you there?", stop=["Uma"])).choices[0]
        self.assertEqual(reply.finish_reason, "stop")
        self.assertNotIn("Uma", reply.message.content)

    def test_token_limit(self):
        reply = client.chat.completions.create(**chat("Hey Annie, are you there?", max_tokens=2))
        self.assertEqual((reply.choices[0].finish_reason, reply.usage.completion_tokens), ("length", 2))

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as refused:
            client.chat.completions.create(**chat("Hi", n=2))
        self.assertEqual(refused.exception.param, "n")
        with self.assertRaises(openai.NotFoundError) as unknown:
            client.chat.completions.create(**{**chat("Hi"), "model": "no-such-model"})
        self.assertEqual(unknown.exception.code, "model_not_found")

    def test_next_request_after_a_disconnect(self):
        stream = client.completions.create(model=MODEL, prompt="Once", max_tokens=2000, stream=True,
                                           extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        reply = client.with_options(timeout=5).chat.completions.create(**chat("Hey Annie, are you there?"))
        self.assertIn("Uma", reply.choices[0].message.content)

    def test_async_client(self):
        async def two_at_once():
            async with openai.AsyncOpenAI(base_url=URL, api_key="none", max_retries=0) as other:
                request = chat("Hey Annie, are you there?")
                whole, stream = await asyncio.gather(other.chat.completions.create(**request),
                                                     other.chat.completions.create(**request, stream=True))
                pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
                return whole.choices[0].message.content, "".join(pieces)

        whole, streamed = asyncio.run(two_at_once())
        self.assertEqual(whole, streamed)


client = openai.OpenAI(base_url=URL, api_key="none", max_retries=0, timeout=60)
MODEL = client.models.list().data[0].id
unittest.main()
