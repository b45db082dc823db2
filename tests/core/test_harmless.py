from eva_stages.core.harmless import harmless, one_line


def test_control_characters_are_shown_and_not_sent() -> None:
    assert harmless("a\x1b[2Jb\x00\x7f\x9b", 100) == "a\u241b[2Jb\u2400\u2421[U+009B]"
    assert harmless("line\r\n\ttab\n", 100) == "line\n\ttab\n"


def test_reading_direction_cannot_be_turned() -> None:
    assert harmless("\u202eabc\u2066", 100) == "[U+202E]abc[U+2066]"
    assert harmless("\u0645\u0631\u062d\u0628\u0627 \U0001f600", 100) == "\u0645\u0631\u062d\u0628\u0627 \U0001f600"


def test_long_texts_are_cut_with_a_note() -> None:
    assert harmless("x" * 100_000, 10) == "x" * 10 + " [... 99,990 more characters]"
    assert harmless("x" * 10, 10) == "x" * 10
    assert harmless(None, 10) == "(none)"


def test_what_no_encoder_takes_is_replaced() -> None:
    assert harmless("a\ud800b", 10).encode() == "a\ufffdb".encode()


def test_one_line_is_one_line() -> None:
    assert one_line("a\n\nb\tc", 100) == "a b c"
