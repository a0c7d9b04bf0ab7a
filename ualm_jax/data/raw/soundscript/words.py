"""A tokenizer of the words of language 2: every word that its conversations hold is one id, others are spelt.

Small enough for models of a few million parameters: 261 ids, of which a caption takes some 14.
"""

import functools
import os
import string

WORDS = """
    a a3 a4 a5 after alarm an and any applause are as asked at away b3 b4 b5 be beat beep beeps before big blows
    brown burst bursts buzz buzzes buzzing by c3 c4 c5 came caption clap claps click clicks climb come comes count
    cymbal d3 d4 d5 describe description do does down downward drum drums dry during e3 e4 e5 end f3 f4 f5 fall
    falling falls finally first floor followed footsteps for four g3 g4 g5 goes hand hear hi-hat hi-hats high hiss
    hisses hit hits how i immediately is it keywords kick kicks lands last lasts layout leave let liked long loud
    louder low make many me medium missing next no noise none not note notes of off on once one or order out over
    overlap pause plainly plan planned play pluck plucked plucks rhythm rich right rising rocket round rumble
    rumbles say second short should sink snare snares soft softer some someone something sound sounds steps storm
    string strings sweep sweeps takes that the then there thing third three thud thump thumps tick ticks times to
    tone tones tune turn twice two up upward wake walks want warns was were what which while white wind with write
    wrong yes you
"""

_LETTERS = string.ascii_lowercase + string.digits + "-'#.,:;=?!()/\n"
_AFTER_NEWLINE = ("layout", "description", "what")  # words that begin lines
_SPACE = "\u2581"  # stands before a word that follows a space


@functools.cache
def known_words() -> frozenset[str]:
    return frozenset(WORDS.split())


def unknown_words(text: str) -> list[str]:
    """The words of a text that no conversation of SoundScript holds, in order, each once."""
    words = "".join(letter if letter not in ".,:;=?!()/" else " " for letter in text.lower()).split()
    return [word for word in dict.fromkeys(words) if word not in known_words()]


def save_tokenizer(directory: str | os.PathLike) -> None:
    """Write the tokenizer as Hugging Face stores it. Texts come back in lower case; what is not ASCII is unknown."""
    import tokenizers
    import transformers

    whole = [_SPACE + word for word in WORDS.split()] + [_SPACE + "=", *_AFTER_NEWLINE]
    pieces = [("<unk>", -20.0), (_SPACE, -10.0)] + [(piece, -1.0) for piece in whole]
    pieces += [(letter, -1.0 if letter in ".,:;=?!\n" else -10.0) for letter in _LETTERS]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always")
    tokenizer.decoder = tokenizers.decoders.Metaspace(_SPACE, prepend_scheme="always")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(directory)
