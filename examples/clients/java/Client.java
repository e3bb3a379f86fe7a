// Scores, ranks and generates from Java: ./run.sh REWARD_TARGET POLICY_TARGET
import dev.palate.v1.*;
import io.grpc.ClientInterceptor;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

public final class Client {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] targets) throws InterruptedException {
        ManagedChannel reward = channel(targets[0]);
        ManagedChannel policy = channel(targets[1]);
        try {
            scoreAndRank(RewardServiceGrpc.newBlockingStub(reward));
            generate(PolicyServiceGrpc.newBlockingStub(policy));
        } catch (StatusRuntimeException error) {
            Metadata trailers = error.getTrailers() == null ? new Metadata() : error.getTrailers();
            System.err.printf("%s (request %s)%n", error.getMessage(), trailers.get(key("palate-request-id")));
            System.exit(1);
        } finally {
            reward.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
            policy.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }

    private static void scoreAndRank(RewardServiceGrpc.RewardServiceBlockingStub service) {
        Content prompt = text("What do you think of my business idea?");
        List<Content> completions = List.of(text("Brilliant!"), text("Work out the cost per loaf first."));

        ScoreRequest.Builder request = ScoreRequest.newBuilder();
        for (Content completion : completions) {
            request.addItems(ScoreItem.newBuilder().setPrompt(prompt).setCompletion(completion));
        }
        // A stub with a deadline is good for one call: the deadline is a moment, not a length of time.
        ScoreResponse reply = service.withDeadlineAfter(10, TimeUnit.SECONDS).score(request.build());
        for (ScoreResult result : reply.getResultsList()) {
            OUT.println("score " + describe(result));
        }

        RankRequest both = RankRequest.newBuilder().setPrompt(prompt).addAllCompletions(completions).build();
        RankResponse ranked = service.withDeadlineAfter(10, TimeUnit.SECONDS).rank(both);
        String revision = ranked.getProvenance().getRevision().substring(0, 12);
        OUT.println("order " + spaced(ranked.getOrderList()) + " revision " + revision);
    }

    /** A failed item has no score: getScored() would be an empty message whose score reads as 0. */
    private static String describe(ScoreResult result) {
        if (result.getOutcomeCase() == ScoreResult.OutcomeCase.SCORED) {
            return String.format(Locale.ROOT, "%.4f", result.getScored().getScore());
        }
        return result.getError().getCode() + ": " + result.getError().getMessage();
    }

    private static void generate(PolicyServiceGrpc.PolicyServiceBlockingStub service) {
        GenerateRequest request = GenerateRequest.newBuilder()
                .addPrompts(GeneratePrompt.newBuilder().setPrompt(text("Once upon a time")).setSeed(1))
                .setSampling(SamplingParams.newBuilder().setMaxNewTokens(8))
                .build();
        Iterator<GenerateResponse> events = service.withDeadlineAfter(10, TimeUnit.SECONDS).generate(request);
        while (events.hasNext()) {
            GenerateResponse event = events.next();
            if (!event.hasCompletion()) {
                continue; // the last message is a summary
            }
            Completion completion = event.getCompletion();
            String tokens = spaced(completion.getTokenIdsList());
            OUT.println("completion " + completion.getFinishReason() + " tokens " + tokens);
            OUT.println("text " + completion.getText());
        }
    }

    private static ManagedChannel channel(String target) {
        return NettyChannelBuilder.forTarget(target).intercept(credentials()).usePlaintext().build();
    }

    private static ClientInterceptor credentials() {
        Metadata metadata = new Metadata();
        String token = System.getenv("PALATE_TOKEN");
        if (token != null) {
            metadata.put(key("authorization"), "Bearer " + token);
        }
        return MetadataUtils.newAttachHeadersInterceptor(metadata);
    }

    private static Metadata.Key<String> key(String name) {
        return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    }

    private static Content text(String value) {
        return Content.newBuilder().setText(value).build();
    }

    private static String spaced(List<Integer> numbers) {
        return numbers.stream().map(String::valueOf).collect(Collectors.joining(" "));
    }
}
