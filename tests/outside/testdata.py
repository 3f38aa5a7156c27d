from stagehand_testdata.registry import ExternalType

external_types = [
    ExternalType("account", "tests.outside.handlers.Account", description="At the HTTP server."),
    ExternalType("mailbox", "tests.outside.handlers.Mailbox", description="At the SMTP server."),
]
