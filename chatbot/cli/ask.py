"""`chatbot ask`: one message in, its reply on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import run_async
from chatbot.engines.head_start import HeadStart
from chatbot.errors import UserError
from chatbot.events import ConversationChanged, Failed, Finished, Notice, Progress, Started, TextDelta, Usage

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from chatbot.context import Context
    from chatbot.settings import Settings

HELP = "ask once and print the reply; piped input joins the message"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="*", help="the message; piped input is appended to it")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--continue", dest="resume", action="store_true", help="go on in the conversation last spoken in"
    )
    where.add_argument("--conversation", metavar="ID", help="go on in this conversation")
    parser.add_argument("--model", metavar="NAME", help="NAME[@VERSION], or the path of a GGUF file")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--temperature", type=float, metavar="X", help="sampling temperature; 0: no chance")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest reply, in tokens")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the sampling")
    parser.add_argument(
        "--show-context", action="store_true", help="print what the model would be sent; nothing is sent or stored"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object when the reply is complete")


def run(arguments: argparse.Namespace) -> int:
    from chatbot.settings import Settings

    text = _message(arguments.text)
    settings = Settings.load(
        system=arguments.system,
        temperature=arguments.temperature,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
    )
    return run_async(_ask(settings, text, arguments))


def _message(words: list[str]) -> str:
    """The words of the command line and what is piped in, joined."""
    parts = [" ".join(words)] if words else []
    if not sys.stdin.isatty():
        piped = sys.stdin.buffer.read()
        try:
            parts.append(piped.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(
                f"The piped input is not UTF-8 text (byte {error.start + 1} is 0x{piped[error.start]:02x}); "
                "convert it first, for example with `iconv -t UTF-8`."
            ) from None
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise UserError('There is nothing to ask: say it, as in `chatbot ask "How are you?"`, or pipe it in.')
    return text


async def _ask(settings: Settings, text: str, arguments: argparse.Namespace) -> int:
    head_start = HeadStart(settings.last_loaded_file)
    if not (arguments.model or settings.model or settings.engine):
        await head_start.begin()
    try:
        return await _answer(settings, text, arguments, head_start)
    finally:
        await head_start.close()


async def _answer(settings: Settings, text: str, arguments: argparse.Namespace, head_start: HeadStart) -> int:
    from chatbot.context import shown
    from chatbot.session import open_service

    with ProgressPrinter() as progress:
        async with open_service(settings, most_at_once=1, head_start=head_start) as service:
            conversation = await _conversation(service, arguments, progress)
            model = arguments.model or ""
            if arguments.show_context:
                progress.tell("Loading the model, which counts")
                context = await service.context(conversation, text, model=model)
                progress.close()
                print(_context_json(context) if arguments.json else shown(context), flush=True)
                return 0
            code = await _print_reply(service, conversation, text, model, progress, as_json=arguments.json)
            if not code and service.summarising:
                progress.tell("Summarising what is older, for the next message; Ctrl-C leaves it")
                await service.settle()
            return code


async def _conversation(service: ChatService, arguments: argparse.Namespace, progress: ProgressPrinter) -> str | None:
    conversation: str | None = arguments.conversation
    if arguments.resume:
        latest = await service.conversations.list(limit=1)
        if not latest:
            progress.tell("There is no conversation to continue yet; this begins one.")
        conversation = latest[0].id if latest else None
    if conversation is not None:
        await service.conversations.get(conversation)  # says so where there is none
        if arguments.system is not None:
            await service.set_system(conversation, arguments.system)
    return conversation


async def _print_reply(
    service: ChatService, conversation: str | None, text: str, model: str, progress: ProgressPrinter, *, as_json: bool
) -> int:
    started: Started | None = None
    usage: Usage | None = None
    said = False
    async with aclosing(service.send(conversation, text, commands=False, model=model)) as events:
        async for event in events:
            match event:
                case Started():
                    started = event
                case TextDelta(text=piece) if not as_json:
                    progress.close()
                    said = True
                    print(piece, end="", flush=True)
                case Progress():
                    progress(event)
                case Usage():
                    usage = event
                case Finished():
                    progress.close()
                    if as_json:
                        print(_json(started, event, usage), flush=True)
                    else:
                        print(flush=True)
                        if not event.text:
                            say("(the model said nothing)")
                        if event.reason == "length":
                            say("(cut: the longest reply is reached; --max-tokens allows more)")
                case Failed(text=reason):
                    progress.close()
                    if said and not as_json:
                        print(flush=True)
                    say(f"chatbot: {reason}")
                    return 2
                case ConversationChanged() | Notice() | TextDelta():
                    pass
    return 0


def _context_json(context: Context) -> str:
    return json.dumps(
        {
            "messages": [{"role": message.role, "content": message.content} for message in context.messages],
            "prompt_tokens": context.prompt_tokens,
            "budget_tokens": context.budget,
            "reply_tokens": context.reply_tokens,
            "summary": context.summary,
            "summarised": context.summarised,
            "pinned": list(context.pinned),
        },
        ensure_ascii=False,
    )


def _json(started: Started | None, finished: Finished, usage: Usage | None) -> str:
    assert started is not None
    assert usage is not None
    return json.dumps(
        {
            "conversation": started.conversation,
            "message": started.reply,
            "text": finished.text,
            "finish_reason": finished.reason,
            "model": finished.model,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
            },
            "timings": {
                "load_s": round(usage.load_s, 4),
                "first_token_s": round(usage.first_token_s, 4),
                "decode_tokens_per_s": round(usage.decode_tokens_per_s, 2),
            },
        },
        ensure_ascii=False,
    )
