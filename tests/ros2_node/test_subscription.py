"""Messages that were skipped, by their sequence numbers."""

from vditrack_ros.camera.subscription import count_skipped_messages


def test_messages_skipped():
    def info(number, gid=b"a"):
        return {"publication_sequence_number": number, "publisher_gid": {"data": gid}}

    last, skipped = count_skipped_messages(info(5), None)
    assert skipped == 0
    last, skipped = count_skipped_messages(info(6), last)
    assert skipped == 0
    last, skipped = count_skipped_messages(info(9), last)
    assert skipped == 2
    # Another publisher, or one that started anew, counts for itself.
    last, skipped = count_skipped_messages(info(90, b"b"), last)
    assert skipped == 0
    assert count_skipped_messages(info(3, b"b"), last)[1] == 0
    assert count_skipped_messages({"source_timestamp": 1}, last) == (None, 0)
