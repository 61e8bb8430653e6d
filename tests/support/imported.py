"""What the processes of `processes` have imported before they start."""

import multiprocessing.queues
import multiprocessing.synchronize

import alembic.command
import alembic.config
import openai
import pytest

import tokenmem.testing
from tests.support import programs, stores
from tokenmem import cli

__all__ = ["alembic", "cli", "multiprocessing", "openai", "programs", "pytest", "stores", "tokenmem"]
