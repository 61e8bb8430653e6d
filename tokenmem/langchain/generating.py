"""`generate` and `apply`: a model asked with whole sets of values, past the memory, as in LangChain."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenmem.errors import InvalidArgument
from tokenmem.langchain.base import BaseChain
from tokenmem.langchain.callbacks import Told, told_of
from tokenmem.langchain.llms import ask, ask_async, is_runnable, text_of
from tokenmem.langchain.memory import STOP, Values
from tokenmem.langchain.prompts import PromptValue, prompt_text, prompt_value
from tokenmem.langchain.styles import told_prompt

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
        prompts = []
        for prompt in self._each_prompt(input_list):
            if run_manager is not None:
                run_manager.on_text(told_prompt(prompt_text(prompt)), end="\n", verbose=False)
            prompts.append(prompt)
        options, callbacks = self._asked_with(input_list), _child(run_manager)
        llm: Any = self.llm
        config = {"callbacks": callbacks}
        if is_runnable(llm):
            stop = options.pop(STOP, None)
            if _is_language_model(llm):
                return llm.generate_prompt(_values(prompts), stop, callbacks=callbacks, **options)
            return _result(llm.bind(stop=stop, **options).batch(prompts, config))
        return _result([ask(llm, prompt, config=config, **options) for prompt in prompts])

    async def agenerate(self, input_list: InputList, run_manager: Any = None) -> Any:
        """What `generate` returns, awaited."""
        prompts = []
        for prompt in self._each_prompt(input_list):
            if run_manager is not None:
                await run_manager.on_text(told_prompt(prompt_text(prompt)), end="\n", verbose=False)
            prompts.append(prompt)
        options, callbacks = self._asked_with(input_list), _child(run_manager)
        llm: Any = self.llm
        config = {"callbacks": callbacks}
        if is_runnable(llm):
            stop = options.pop(STOP, None)
            if _is_language_model(llm):
                return await llm.agenerate_prompt(_values(prompts), stop, callbacks=callbacks, **options)
            return _result(await llm.bind(stop=stop, **options).abatch(prompts, config))
        return _result(
            await asyncio.gather(*(ask_async(llm, prompt, config=config, **options) for prompt in prompts))
        )

    def apply(self, input_list: InputList, callbacks: Any = None) -> list[Values]:
        """For each set of values, the history among them, the model's answer under the output key.

        Nothing is loaded and nothing stored, as in LangChain's chain; `batch` does both. Raises what
        `generate` does.
        """
        told = told_of(self, {"callbacks": callbacks}, awaited=False, tagged=False)
        told.start({"input_list": input_list})
        try:
            outputs = self._outputs(self.generate(input_list, run_manager=_Manager(told)))
        except BaseException as error:
            told.error(error)
            raise
        told.end({"outputs": outputs})
        return outputs

    async def aapply(self, input_list: InputList, callbacks: Any = None) -> list[Values]:
        """What `apply` returns, awaited."""
        told = told_of(self, {"callbacks": callbacks}, awaited=True, tagged=False)
        await told.astart({"input_list": input_list})
        try:
            outputs = self._outputs(await self.agenerate(input_list, run_manager=_AsyncManager(told)))
        except BaseException as error:
            await told.aerror(error)
            raise
        await told.aend({"outputs": outputs})
        return outputs

    def _each_prompt(self, input_list: InputList) -> Iterator[PromptValue]:
        """The prompts, one after the other, as each is told of before the next is made."""
        for inputs in input_list:
            yield prompt_value(self.prompt, self.selected(dict(inputs)))
            if STOP in inputs and inputs[STOP] != input_list[0].get(STOP):
                raise InvalidArgument("stop differs among the inputs; give the same in all, or in none")

    def _asked_with(self, input_list: InputList) -> Values:
        return self.options(dict(input_list[0])) if input_list else dict(self.llm_kwargs)

    def _outputs(self, result: Any) -> list[Values]:
        return [{self.output_key: self.parsed(answers[0].text)} for answers in result.generations]


class _Manager:
    """LangChain's manager of a run, as far as `generate` needs one."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def on_text(self, text: str, **_: Any) -> None:
        """Tell of a prompt."""
        self._told.text(text)

    def get_child(self) -> Any:
        """LangChain's manager of what the chain calls, or None."""
        return self._told.config().get("callbacks")


class _AsyncManager(_Manager):
    async def on_text(self, text: str, **_: Any) -> None:  # type: ignore[override]  # as LangChain's
        """Tell of a prompt."""
        await self._told.atext(text)


def _child(run_manager: Any) -> Any:
    return None if run_manager is None else run_manager.get_child()


def _is_language_model(llm: object) -> bool:
    """Whether it is one of LangChain's models itself, and not something that binds arguments to one."""
    models = sys.modules.get("langchain_core.language_models")
    return models is not None and isinstance(llm, models.BaseLanguageModel)


def _values(prompts: Sequence[PromptValue]) -> list[PromptValue]:
    """Prompts as LangChain's models take them."""
    from langchain_core.prompt_values import StringPromptValue

    return [StringPromptValue(text=prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def _result(answers: Sequence[object]) -> Any:
    if "langchain_core.outputs" in sys.modules:
        from langchain_core import messages, outputs

        return outputs.LLMResult(
            generations=[
                [outputs.ChatGeneration(message=answer)]
                if isinstance(answer, messages.BaseMessage)
                else [outputs.Generation(text=text_of(answer))]
                for answer in answers
            ]
        )
    return LLMResult([[Generation(text_of(answer))] for answer in answers])
