"""What the marketplace brings: found by autodiscovery, as any app's `testdata` module is."""

from stagehand_testdata.registry import EntityType, Scenario, WireOperation

_HERE = "stagehand_testdata.marketplace"

entity_types = [
    EntityType(
        "builder",
        f"{_HERE}.factories.BuilderFactory",
        exclude=["user"],
        plural="builders",
        represent=f"{_HERE}.wire.represent_builder",
        make_many=f"{_HERE}.wire.make_builders",
    ),
    EntityType(
        "client",
        f"{_HERE}.factories.ClientFactory",
        exclude=["user"],
        plural="clients",
        represent=f"{_HERE}.wire.represent_client",
        make_many=f"{_HERE}.wire.make_clients",
    ),
    EntityType(
        "sessionType",
        f"{_HERE}.factories.SessionTypeFactory",
        plural="sessionTypes",
        represent=f"{_HERE}.wire.represent_session_type",
        make_many=f"{_HERE}.wire.make_session_types",
    ),
    EntityType(
        "booking",
        f"{_HERE}.factories.BookingFactory",
        plural="bookings",
        represent=f"{_HERE}.wire.represent_booking",
        make_many=f"{_HERE}.wire.make_bookings",
    ),
]

operations = [
    WireOperation(
        "builders",
        f"{_HERE}.wire.create_builder",
        request=f"{_HERE}.serializers.BuilderRequest",
        response=f"{_HERE}.serializers.BuilderAnswer",
        description="A builder with a user of its own",
    ),
    WireOperation(
        "session-types",
        f"{_HERE}.wire.create_session_types",
        request=f"{_HERE}.serializers.SessionTypesRequest",
        response=f"{_HERE}.serializers.SessionTypeAnswer",
        many=True,
        description="Session types of a builder of the run, in the order asked for",
    ),
    WireOperation(
        "clients",
        f"{_HERE}.wire.create_client",
        request=f"{_HERE}.serializers.ClientRequest",
        response=f"{_HERE}.serializers.ClientAnswer",
        description="A client with a user of its own",
    ),
    WireOperation(
        "booking-scenarios",
        f"{_HERE}.wire.create_booking_scenario",
        request=f"{_HERE}.serializers.BookingRequest",
        response=f"{_HERE}.serializers.BookingScenarioAnswer",
        description="A booking with everything that it needs, or with rows of the run that are named",
    ),
]

scenarios = [
    Scenario(
        "marketplace",
        f"{_HERE}.wire.marketplace_preset",
        description="Three builders, two session types each",
    ),
    Scenario(
        "booking",
        f"{_HERE}.wire.booking_preset",
        request=f"{_HERE}.serializers.BookingRequest",
        description="A builder with 60 min at 75 and 90 min at 120, and a booking of the first",
    ),
    Scenario(
        "payment",
        f"{_HERE}.wire.payment_preset",
        request=f"{_HERE}.serializers.BookingRequest",
        description="A booking of 85 that waits for its payment",
    ),
]
