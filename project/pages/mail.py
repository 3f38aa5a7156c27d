"""What the product writes to its customers."""

from __future__ import annotations

from django.core.mail import send_mail
from django.template.loader import render_to_string

from stagehand_testdata.marketplace.models import Booking


def confirm(booking: Booking, address: str, page: str) -> None:
    """Tell whoever has booked, if there is an address, that it was received; `page` is where it is shown."""
    if address:
        text = render_to_string("marketplace/booking_mail.txt", {"booking": booking, "link": page})
        # A title may have come from anywhere; a subject is one line.
        send_mail(f"Booking received: {' '.join(booking.title.split())}", text, None, [address])
