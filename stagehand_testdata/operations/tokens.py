"""Exchange a token of a CI job's own for an access key of a few minutes.

# Note [A token is spent once]
Whoever reads a job's log or its memory may find the token there, and would have a key of his own for it. So
the first exchange enters the token's digest in the transaction that makes the key: the digest is unique, a
second exchange waits for the first one's commit and is then refused like any other wrong token. If the first
one fails, the token is not spent.
"""

from __future__ import annotations

import datetime as dt

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from ..access import keys, oidc
from ..exceptions import ConfigurationError, InvalidInput, NotAuthenticated
from ..models import AccessKey, SpentToken
from .runs import ledger_alias

#: Three clocks have a say, the issuer's, ours and the database's: a spent token is remembered for longer.
_REMEMBERED = dt.timedelta(hours=1)
#: How long the key of a job stays to be looked at after its end.
_KEPT = dt.timedelta(days=7)


def exchange(verified: oidc.Verified) -> keys.Made:
    """A key for this token, which is spent with it. See Note [A token is spent once].

    Raises NotAuthenticated where it was spent before; ConfigurationError where the host's entry allows what
    is not there (E041), and then it is not spent.
    """
    alias = ledger_alias()
    _forget_old(alias)
    with transaction.atomic(using=alias):
        try:
            SpentToken(digest=verified.digest, expires_at=verified.expires_at + _REMEMBERED).save(
                using=alias, force_insert=True
            )
        except IntegrityError as error:
            raise NotAuthenticated(oidc.REFUSAL) from error
        trust = verified.trust
        try:
            return keys.create(
                trust.name,
                dt.timedelta(minutes=trust.minutes),
                owner=verified.owner,
                holder=verified.subject[: AccessKey._meta.get_field("holder").max_length],
                **trust.allowances,
            )
        except InvalidInput as error:
            # What the job has sent was in order.
            raise ConfigurationError(f"OIDC_TRUST, entry {trust.name!r}: {error.message}") from error


def _forget_old(alias: str) -> None:
    """Remove spent tokens that no longer count, and the keys of jobs that ended long ago."""
    SpentToken.objects.using(alias).filter(expires_at__lte=Now()).delete()
    old = AccessKey.objects.using(alias).filter(owner__startswith=oidc.OWNER_PREFIX)
    old.filter(expires_at__lte=Now() - _KEPT).delete()
