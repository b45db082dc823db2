from eva_stages.core.errors import describe


def test_an_object_in_the_message_of_a_library_is_left_out() -> None:
    error = OSError("Cannot connect to host localhost:9 ssl:<ssl.SSLContext object at 0x7feff957a180> [Connect call failed]")
    assert describe(error) == "OSError: Cannot connect to host localhost:9 [Connect call failed]"
