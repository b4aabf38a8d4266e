{# A view, as agg_model_quality. #}
{{ config(materialized='view', post_hook=[]) }}

with

evaluations as (

    select * from {{ ref('agg_model_quality') }}

),

models as (

    select
        as_of,
        cut_id,
        model,
        max(framework) as framework,
        max(value) filter (where metric = 'ndcg_at_10') as ndcg_at_10,
        max(value) filter (where metric = 'inference_p50_ms') as inference_p50_ms,
        max(value) filter (where metric = 'training_seconds') as training_seconds,
        max(value) filter (where metric = 'peak_rss_mb') as peak_rss_mb

    from evaluations
    group by as_of, cut_id, model

)

-- On the front: no other model of the cut is as good and as quick, and better in one of the two.
select
    models.*,
    not exists (
        select from models as other
        where
            other.cut_id = models.cut_id
            and other.ndcg_at_10 >= models.ndcg_at_10
            and other.inference_p50_ms <= models.inference_p50_ms
            and (other.ndcg_at_10 > models.ndcg_at_10 or other.inference_p50_ms < models.inference_p50_ms)
    ) as is_on_front

from models
where models.ndcg_at_10 is not null and models.inference_p50_ms is not null
