"""What the processes of `processes` have imported before they start."""

import multiprocessing.queues
import multiprocessing.synchronize

import openai
import pytest

import tokenmem.testing
from tests.support import stores

__all__ = ["multiprocessing", "openai", "pytest", "stores", "tokenmem"]
