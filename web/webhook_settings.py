"""The settings of web that are about webhooks."""

from __future__ import annotations

from pydantic import BaseModel, Field, PositiveFloat

from contract.limits import WEBHOOK_ATTEMPTS
from web.setting_values import SigningSecret, WebhookHost


class WebhookSettings(BaseModel):
    """Where the ends of jobs may be delivered to, and how often that is tried."""

    webhook_hosts: list[WebhookHost] = Field(
        default=[],
        max_length=256,
        description="Hosts that webhooks may be on, as JSON: host (port 443), host:port, or *.example.com for all "
        "names below it. A private address must stand here itself, such as 127.0.0.1:9000, and only "
        "there is plain HTTP allowed. When empty, requests with a webhook are refused.",
    )
    webhook_secret: SigningSecret | None = Field(
        default=None,
        description="Secret that webhooks are signed with where callers is off: whsec_ and 24 to 64 random bytes in "
        "base64. Elsewhere each caller has its own, webhook_secret in callers_file.",
    )
    webhook_seconds: PositiveFloat = Field(default=10, description="Longest that one attempt to deliver may take.")
    webhook_attempts: int = Field(
        default=12, ge=1, le=WEBHOOK_ATTEMPTS, description="Most attempts to deliver the end of one job."
    )
    webhook_retry_seconds: PositiveFloat = Field(
        default=5,
        le=300,
        description="About how long after the first attempt the second one follows. The wait doubles each time, up to "
        "300 s.",
    )
