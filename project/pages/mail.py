"""What the product writes to its customers."""

from __future__ import annotations

from django.core.mail import send_mail

from stagehand_testdata.marketplace.models import Booking


def confirm(booking: Booking) -> None:
    """Tell the client that the booking was received; a visitor without an account reads it on the page."""
    if booking.client is None:
        return
    text = (
        f"You have booked {booking.title} with {booking.builder.display_name},"
        f" {booking.start_time:%Y-%m-%d %H:%M} UTC.\n"
    )
    send_mail("Booking received", text, None, [booking.client.email])
