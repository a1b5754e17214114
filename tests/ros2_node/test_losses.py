"""Missing messages are counted once and by their cause."""

from vditrack_ros.transport.losses import LossCounter, Losses


def info(number, gid=b"a"):
    return {"publication_sequence_number": number, "publisher_gid": {"data": gid}}


def test_a_message_in_the_sequence_is_missing():
    counter = LossCounter()
    for number in (5, 6, 9, 10):
        counter.receive(info(number))
    assert counter.take() == Losses(lost=0, overtaken=2)
    assert counter.take() == Losses(0, 0)


def test_what_the_middleware_reports_is_not_counted_again():
    counter = LossCounter()
    counter.receive(info(1))
    # Of three that are missing, one is reported before and one after the gap is seen.
    counter.report_lost(1)
    counter.receive(info(5))
    counter.report_lost(1)
    counter.receive(info(6))
    assert counter.take() == Losses(lost=2, overtaken=1)


def test_losses_without_any_message():
    counter = LossCounter()
    for _ in range(58):
        counter.report_lost(1)
    assert counter.take() == Losses(58, 0)


def test_another_publisher_counts_for_itself():
    counter = LossCounter()
    counter.receive(info(9))
    counter.receive(info(90, b"b"))
    # One that starts anew.
    counter.receive(info(3, b"b"))
    counter.receive(info(5, b"b"))
    counter.receive(info(6, b"b"))
    assert counter.take() == Losses(0, 1)


def test_a_new_subscription_has_missed_nothing():
    counter = LossCounter()
    counter.receive(info(1))
    counter.reset()
    counter.receive(info(50))
    counter.receive(info(51))
    assert counter.take() == Losses(0, 0)


def test_without_sequence_numbers():
    counter = LossCounter()
    counter.receive(info(1))
    counter.receive({"source_timestamp": 1})
    counter.receive(info(9))
    counter.receive(info(10))
    assert counter.take() == Losses(0, 0)
