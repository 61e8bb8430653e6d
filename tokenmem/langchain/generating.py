"""`generate` and `apply`: a model asked with whole sets of values, past the memory, as in LangChain."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenmem.errors import InvalidArgument
from tokenmem.langchain.base import BaseChain
from tokenmem.langchain.callbacks import Told, told_of
from tokenmem.langchain.llms import ask, ask_async, text_of
from tokenmem.langchain.memory import STOP, Values
from tokenmem.langchain.prompts import PromptValue, prompt_value

InputList = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer: `text`. What LangChain's Generation is where langchain-core is there."""

    text: str


@dataclass(frozen=True, slots=True)
class LLMResult:
    """Answers: `generations` has a list of one Generation for each prompt."""

    generations: list[list[Generation]]


class GeneratingMethods(BaseChain):
    """A chain's methods that load nothing and store nothing: each input has all that the prompt needs."""

    def generate(self, input_list: InputList, run_manager: Any = None) -> Any:
        """The model's answers to prompts made of these values alone, the history among them.

        Nothing is loaded and nothing stored, as in LangChain's chain.

        Args:
            input_list: for each prompt its values by name; and `stop`, the same in all, or in none.
            run_manager: LangChain's, whose callbacks the model is given.

        Returns:
            LangChain's LLMResult, or, where langchain-core is not there, an object with `generations`.

        Raises:
            InvalidArgument: a value is missing (also a KeyError), or `stop` differs.
        """
        prompts, options = self._prompts(input_list)
        callbacks = None if run_manager is None else run_manager.get_child()
        if hasattr(self.llm, "generate_prompt"):
            stop = options.pop(STOP, None)
            return self.llm.generate_prompt(_values(prompts), stop, callbacks=callbacks, **options)
        config = {"callbacks": callbacks}
        return _result([text_of(ask(self.llm, prompt, config=config, **options)) for prompt in prompts])

    async def agenerate(self, input_list: InputList, run_manager: Any = None) -> Any:
        """What `generate` returns, awaited."""
        prompts, options = self._prompts(input_list)
        callbacks = None if run_manager is None else run_manager.get_child()
        if hasattr(self.llm, "agenerate_prompt"):
            stop = options.pop(STOP, None)
            return await self.llm.agenerate_prompt(_values(prompts), stop, callbacks=callbacks, **options)
        config = {"callbacks": callbacks}
        asked = (ask_async(self.llm, prompt, config=config, **options) for prompt in prompts)
        return _result([text_of(answer) for answer in await asyncio.gather(*asked)])

    def apply(self, input_list: InputList, callbacks: Any = None) -> list[Values]:
        """For each set of values, the history among them, the model's answer under the output key.

        Nothing is loaded and nothing stored, as in LangChain's chain; `batch` does both. Raises what
        `generate` does.
        """
        told = told_of(self, {"callbacks": callbacks}, awaited=False)
        told.start({"input_list": input_list})
        try:
            outputs = self._outputs(self.generate(input_list, run_manager=_manager(told)))
        except BaseException as error:
            told.error(error)
            raise
        told.end({"outputs": outputs})
        return outputs

    async def aapply(self, input_list: InputList, callbacks: Any = None) -> list[Values]:
        """What `apply` returns, awaited."""
        told = told_of(self, {"callbacks": callbacks}, awaited=True)
        await told.astart({"input_list": input_list})
        try:
            outputs = self._outputs(await self.agenerate(input_list, run_manager=_manager(told)))
        except BaseException as error:
            await told.aerror(error)
            raise
        await told.aend({"outputs": outputs})
        return outputs

    def _prompts(self, input_list: InputList) -> tuple[list[PromptValue], Values]:
        stops = [inputs.get(STOP) for inputs in input_list]
        if any(stop != stops[0] for stop in stops):
            raise InvalidArgument("stop differs among the inputs; give the same in all of them, or in none")
        prompts = [prompt_value(self.prompt, self.selected(dict(inputs))) for inputs in input_list]
        stop = {STOP: stops[0]} if stops and stops[0] is not None else {}
        return prompts, {**self.llm_kwargs, **stop}

    def _outputs(self, result: Any) -> list[Values]:
        return [{self.output_key: self.parsed(answers[0].text)} for answers in result.generations]


class _Manager:
    """What gives the model its callbacks."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def get_child(self) -> Any:
        """LangChain's manager of what a chain calls, or None."""
        return self._told.config().get("callbacks")


def _manager(told: Told) -> _Manager:
    return _Manager(told)


def _values(prompts: Sequence[PromptValue]) -> list[PromptValue]:
    """Prompts as LangChain's models take them."""
    from langchain_core.prompt_values import StringPromptValue

    return [StringPromptValue(text=prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def _result(texts: Sequence[str]) -> Any:
    if "langchain_core.outputs" in sys.modules:
        from langchain_core import outputs

        return outputs.LLMResult(generations=[[outputs.Generation(text=text)] for text in texts])
    return LLMResult([[Generation(text)] for text in texts])
