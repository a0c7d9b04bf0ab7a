"""What pytest adds to functions of the package: wrong types and wrong shapes do not pass."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from ualm_jax.tokens.delay import delay
from ualm_jax.tokens.vocabulary import Vocabulary


def test_a_wrong_type_is_refused_where_no_shape_stands():
    with pytest.raises(BeartypeCallHintParamViolation, match="audio_pad"):
        Vocabulary(100, 30).audio_pad("1")


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError, match="codes"):
        delay(np.zeros(8, np.int32), Vocabulary(100, 30))


def test_an_installed_package_checks_nothing(as_installed):
    with pytest.raises(TypeError, match="concatenate|unsupported operand"):
        Vocabulary(100, 30).audio_pad("1")
