"""What diffusers warns of although it has done it itself and nobody can mend it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

# What diffusers says of its own doings. Its AutoencoderTiny notes `block_out_channels` in the configuration that it
# saves, and takes no such argument; of further entries it is to warn. Casting networks of which nothing has to stay in
# float32, it names the empty list of what has to.
_OWN_NOTICES = {
    "diffusers.configuration_utils": re.compile(
        r"The config attributes \{'block_out_channels': [\[(][0-9, ]*[\])]\} were passed to AutoencoderTiny,"
    ),
    "diffusers.models.modeling_utils": re.compile(r"There are modules in \w+ that should be kept in float32: \[\]\."),
}


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return _OWN_NOTICES[record.name].match(record.getMessage()) is None


@contextmanager
def without_own_notices() -> Iterator[None]:
    """Inside the block, diffusers does not warn of what it has done itself and nobody can mend."""
    for name in _OWN_NOTICES:
        logging.getLogger(name).addFilter(_is_worth_saying)
    try:
        yield
    finally:
        for name in _OWN_NOTICES:
            logging.getLogger(name).removeFilter(_is_worth_saying)
